//! Which destinations a claim names: those this engine serves, without those that are busy or shut just now. Pure.

use std::collections::{BTreeMap, BTreeSet};

use mail::Domain;
use spool::{Destination, Destinations};

use crate::left_out::Unwanted;

/// Where domains go, as configured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways {
    pub(crate) routes: BTreeSet<Box<str>>,
    pub(crate) pinned: BTreeMap<Domain, Box<str>>,
    pub(crate) default_route: Option<Box<str>>,
}

impl Ways {
    /// The route of a destination, none when mail exchangers are looked up for it.
    pub(crate) fn route_of<'a>(&'a self, destination: &'a Destination) -> Option<&'a str> {
        match destination {
            Destination::Expand | Destination::Inside => Some(""),
            Destination::Route(name) => Some(name),
            Destination::Domain(domain) => self
                .pinned
                .get(domain)
                .or(self.default_route.as_ref())
                .map(|name| &**name),
        }
    }

    /// What to claim. None: nothing at all.
    pub(crate) fn wanted(
        &self,
        serves: &Destinations,
        unwanted: &Unwanted,
    ) -> Option<Destinations> {
        let busy = |destination: &Destination| {
            unwanted.destinations.contains(destination)
                || self
                    .route_of(destination)
                    .is_some_and(|route| unwanted.routes.iter().any(|busy| &**busy == route))
        };
        let only = match serves {
            Destinations::Only(only) => only.iter().filter(|d| !busy(d)).cloned().collect(),
            // All domains but the pinned ones go to the default route; they cannot be named one by one. While it is busy
            // everything else is.
            Destinations::Except(except) if self.is_default_busy(unwanted) => self
                .named()
                .filter(|d| !except.contains(d) && !busy(d))
                .collect(),
            Destinations::Except(except) => {
                let mut all = except.to_vec();
                let pinned = self
                    .named()
                    .filter(|d| busy(d) && !unwanted.destinations.contains(d));
                all.extend(unwanted.destinations.iter().cloned().chain(pinned));
                return Some(Destinations::Except(all.into()));
            }
        };
        let only: Vec<Destination> = only;
        (!only.is_empty()).then_some(Destinations::Only(only))
    }

    fn is_default_busy(&self, unwanted: &Unwanted) -> bool {
        self.default_route
            .as_ref()
            .is_some_and(|route| unwanted.routes.contains(route))
    }

    /// Every destination whose way is configured by name.
    fn named(&self) -> impl Iterator<Item = Destination> {
        let routes = self.routes.iter().map(|name| match name.is_empty() {
            true => Destination::Inside,
            false => Destination::Route(name.clone()),
        });
        routes.chain(self.pinned.keys().cloned().map(Destination::Domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> Destination {
        Destination::Domain(Domain::parse(name).unwrap())
    }

    fn route(name: &str) -> Destination {
        Destination::Route(name.into())
    }

    fn ways(default_route: Option<&str>) -> Ways {
        Ways {
            routes: ["", "relay", "sink"].into_iter().map(Into::into).collect(),
            pinned: BTreeMap::from([(Domain::parse("pinned.example").unwrap(), "sink".into())]),
            default_route: default_route.map(Into::into),
        }
    }

    /// Sorted, for comparison.
    fn check(
        default_route: Option<&str>,
        serves: Destinations,
        destinations: &[Destination],
        routes: &[&str],
        expected: Option<Destinations>,
    ) {
        let unwanted = Unwanted {
            destinations: destinations.iter().cloned().collect(),
            routes: routes.iter().map(|&r| r.into()).collect(),
        };
        let wanted = ways(default_route).wanted(&serves, &unwanted);
        let shown = |d: Option<Destinations>| match d {
            None => ("nothing", Vec::new()),
            Some(Destinations::Except(list)) => {
                let mut list = list.to_vec();
                list.sort();
                ("except", list)
            }
            Some(Destinations::Only(mut list)) => {
                list.sort();
                ("only", list)
            }
        };
        assert_eq!(shown(wanted), shown(expected), "{serves:?} {unwanted:?}");
    }

    #[test]
    fn busy_destinations_are_left_out() {
        use Destination::{Expand, Inside};
        use Destinations::{Except, Only};
        let except = || Except([Expand].into());
        check(None, except(), &[], &[], Some(except()));
        check(
            None,
            except(),
            &[domain("dead.example")],
            &[],
            Some(Except([Expand, domain("dead.example")].into())),
        );
        // What is pinned to a busy route is left out before it was ever met.
        check(
            None,
            except(),
            &[route("sink")],
            &["sink"],
            Some(Except(
                [Expand, route("sink"), domain("pinned.example")].into(),
            )),
        );
        check(None, Only(vec![Inside]), &[], &[], Some(Only(vec![Inside])));
        check(None, Only(vec![Inside]), &[Inside], &[""], None);
    }

    #[test]
    fn a_busy_default_route_leaves_what_is_named() {
        use Destination::{Expand, Inside};
        use Destinations::{Except, Only};
        check(
            Some("relay"),
            Except([Expand, Inside].into()),
            &[domain("a.example"), domain("b.example")],
            &["relay"],
            Some(Only(vec![route("sink"), domain("pinned.example")])),
        );
        check(
            Some("relay"),
            Only(vec![domain("any.example"), route("sink")]),
            &[],
            &["relay"],
            Some(Only(vec![route("sink")])),
        );
    }
}
