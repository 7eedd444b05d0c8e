//! What a test needs of the machine and the machine does not give. Such a test fails and says what to do; only who asks for it
//! gets it skipped, since a fault that nobody makes is a fault that nobody has survived.

/// What may be missing, as [`MAY_SKIP`] names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Mounting small file systems.
    Mount,
    /// Tracing another process with strace.
    Trace,
}

/// The environment variable that says which tests may be skipped: `mount`, `trace`, or both with a comma between.
pub const MAY_SKIP: &str = "MAILFLOW_TESTS_MAY_SKIP";

impl Missing {
    fn name(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Trace => "trace",
        }
    }

    fn mend(self) -> &'static str {
        match self {
            Self::Mount => {
                "run it as root, or in a container with CAP_SYS_ADMIN and a loop device; e2fsprogs and mount must be installed"
            }
            Self::Trace => {
                "install strace (make test does), and allow tracing: root or CAP_SYS_PTRACE, kernel.yama.ptrace_scope below 2"
            }
        }
    }

    /// Ends a test that cannot run without it.
    ///
    /// # Panics
    /// With what to install or allow, unless [`MAY_SKIP`] names it.
    pub fn end(self, test: &str, why: &str) {
        let may_skip = std::env::var(MAY_SKIP).unwrap_or_default();
        let verdict = self.verdict(&may_skip, test, why);
        match verdict {
            Ok(skipped) => eprintln!("{skipped}"),
            Err(failed) => panic!("{failed}"),
        }
    }

    fn verdict(self, may_skip: &str, test: &str, why: &str) -> Result<String, String> {
        let (name, mend, why) = (self.name(), self.mend(), why.trim());
        match may_skip.split(',').any(|one| one.trim() == name) {
            true => Ok(format!("SKIPPED: {test}: {why}")),
            false => Err(format!(
                "{test} cannot run here: {why}\n{mend}\nor skip such tests: {MAY_SKIP}={name}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_skipped_only_when_that_is_wanted() {
        // Rows: the variable, what is missing, whether it is skipped.
        for (may_skip, missing, skipped) in [
            ("", Missing::Mount, false),
            ("mount", Missing::Mount, true),
            ("mount", Missing::Trace, false),
            ("trace, mount", Missing::Trace, true),
            ("trace, mount", Missing::Mount, true),
            ("all", Missing::Mount, false),
        ] {
            let verdict = missing.verdict(may_skip, "some_test", "not permitted\n");
            assert_eq!(verdict.is_ok(), skipped, "{may_skip} {missing:?}");
        }
        let said = Missing::Trace.verdict("", "some_test", "no strace");
        let said = said.expect_err("it is not wanted");
        assert!(
            said.contains("some_test cannot run here: no strace"),
            "{said}"
        );
        assert!(said.contains("install strace"), "{said}");
        assert!(said.ends_with("MAILFLOW_TESTS_MAY_SKIP=trace"), "{said}");
    }
}
