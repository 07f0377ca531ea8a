//! Why an answer cannot be read: where it is not what the connector says.

use super::pointer::Pointer;

/// Where an answer is not what the connector says. Holds nothing of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// With the row's number in a list.
    pub pointer: String,
    pub problem: &'static str,
}

impl Misfit {
    pub(super) fn new(pointer: &Pointer, problem: &'static str) -> Self {
        Self { pointer: pointer.to_string(), problem }
    }

    /// Configurations without a required field are refused, so nobody sees this.
    pub(super) fn unmapped() -> Self {
        Self { pointer: String::new(), problem: "a required field is not mapped" }
    }

    pub(super) fn of_row(self, rows: &Pointer, at: u64) -> Self {
        Self { pointer: format!("{rows}/{at}{}", self.pointer), ..self }
    }

    pub(super) fn no_json() -> Self {
        Self { pointer: String::new(), problem: "this is no JSON, or a key in it stands twice" }
    }
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.pointer.is_empty() {
            return f.write_str(self.problem);
        }
        write!(f, "`{}`: {}", self.pointer, self.problem)
    }
}
