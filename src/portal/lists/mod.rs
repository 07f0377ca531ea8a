//! Lists over all tenants: invoices and tickets. One scan a tenant, the best rows of each, one page.

pub(super) mod invoices;
pub(super) mod tickets;

/// A search text, compared without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Needle(String);

impl Needle {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_lowercase())
    }

    /// Whether any of the texts holds it.
    pub(super) fn is_in<'t>(&self, texts: impl IntoIterator<Item = Option<&'t str>>) -> bool {
        texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&self.0))
    }
}
