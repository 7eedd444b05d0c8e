//! The last reply of each recipient of a batch: one text where all were told the same, each text once where they were not.

/// See the module. In the order of the batch's recipients; the default: nobody was told anything yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replies {
    /// Each once, in the order of the first recipient who was told it; one of them may be empty, for those who were told nothing.
    texts: Box<[Box<str>]>,
    /// Which text is whose; empty where there are no two texts.
    whose: Box<[u16]>,
}

/// Texts of one batch that are told apart; who comes behind has the last one.
const TEXTS_MAX: usize = u16::MAX as usize;

impl Replies {
    /// The same for everybody.
    pub fn all(text: &str) -> Self {
        Self {
            texts: match text {
                "" => Box::default(),
                text => [text.into()].into(),
            },
            whose: Box::default(),
        }
    }

    /// That of the recipient at this place; empty when there is none.
    pub fn of(&self, place: usize) -> &str {
        let text = match &*self.whose {
            [] => 0,
            whose => usize::from(whose.get(place).copied().unwrap_or_default()),
        };
        self.texts.get(text).map_or("", |text| text)
    }

    /// Each text once, without the empty one.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts
            .iter()
            .map(|text| &**text)
            .filter(|text| !text.is_empty())
    }

    /// Those of the recipients at these places.
    pub fn at(&self, places: impl IntoIterator<Item = usize>) -> Self {
        match &*self.whose {
            [] => self.clone(),
            _ => places.into_iter().map(|place| self.of(place)).collect(),
        }
    }

    /// With each text as `change` makes it.
    pub(crate) fn map<'a>(&'a self, change: impl Fn(&'a str) -> &'a str) -> Self {
        match &*self.whose {
            [] => Self::all(change(self.of(0))),
            whose => (0..whose.len())
                .map(|place| change(self.of(place)))
                .collect(),
        }
    }

    /// The texts, and whose each is where there are several.
    pub(crate) fn parts(&self) -> (&[Box<str>], &[u16]) {
        (&self.texts, &self.whose)
    }

    /// From what [`Self::parts`] gave; none where a recipient has a text that is not there.
    pub(crate) fn from_parts(texts: Vec<Box<str>>, whose: Vec<u16>) -> Option<Self> {
        let there = whose.iter().all(|text| usize::from(*text) < texts.len());
        (there && (texts.len() > 1) != whose.is_empty()).then(|| Self {
            texts: texts.into(),
            whose: whose.into(),
        })
    }
}

impl<'a> FromIterator<&'a str> for Replies {
    fn from_iter<T: IntoIterator<Item = &'a str>>(all: T) -> Self {
        let mut places = std::collections::HashMap::new();
        let mut texts: Vec<Box<str>> = Vec::new();
        let mut whose = Vec::new();
        for text in all {
            let new = (texts.len() < TEXTS_MAX).then_some(texts.len());
            let place = *places
                .entry(text)
                .or_insert_with(|| new.unwrap_or(TEXTS_MAX - 1));
            if Some(place) == new {
                texts.push(text.into());
            }
            whose.push(place as u16);
        }
        match texts.as_slice() {
            [] => Self::default(),
            [only] => Self::all(only),
            _ => Self {
                texts: texts.into(),
                whose: whose.into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_replies_are_kept_once_and_each_recipient_has_his_own() {
        let full = "452 4.2.2 mailbox full";
        let later = "451 4.7.1 try later";
        // Rows: told, texts kept, numbers kept.
        for (told, texts, numbers) in [
            (vec![], 0, 0),
            (vec!["", ""], 0, 0),
            (vec![full, full, full], 1, 0),
            (vec![full, later, full], 2, 3),
            (vec!["", later, ""], 2, 3),
        ] {
            let replies: Replies = told.iter().copied().collect();
            let (kept, whose) = replies.parts();
            assert_eq!((kept.len(), whose.len()), (texts, numbers), "{told:?}");
            for (place, text) in told.iter().enumerate() {
                assert_eq!(replies.of(place), *text, "{told:?}");
            }
            let back: Vec<usize> = (0..told.len()).rev().collect();
            let turned = replies.at(back.iter().copied());
            for (place, of) in back.into_iter().enumerate() {
                assert_eq!(turned.of(place), told[of], "{told:?}");
            }
            let again = Replies::from_parts(kept.to_vec(), whose.to_vec());
            assert_eq!(again, Some(replies));
        }
        assert_eq!(Replies::from_parts(vec![full.into()], vec![1]), None);
        assert_eq!(
            Replies::from_parts(vec![full.into(), later.into()], vec![0, 2]),
            None
        );
    }
}
