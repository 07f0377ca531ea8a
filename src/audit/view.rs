//! What a managed tenant is shown of a line, so that it can check its own part of the chain.
//!
//! The visible part and the tenant's own slice are there as written; the private part and other tenants' slices only as
//! salted digests. [`TenantView::holds`] recomputes the hash from that, without anything that the tenant may not see.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    chain::{Hash, Unplaced, private_digest, slice_digest},
    encode::LineType,
    line::Line,
};

/// One line as a tenant sees it.
#[derive(Debug, Serialize, Deserialize)]
pub struct TenantView {
    pub seq: u64,
    #[serde(rename = "type")]
    pub line_type: String,
    pub prev: Hash,
    pub hash: Hash,
    #[serde(rename = "pub")]
    pub visible: Box<RawValue>,
    #[serde(rename = "priv")]
    pub private: Hash,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<SliceView>,
}

/// The tenant's own slice as written, any other as a digest.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum SliceView {
    Other(Hash),
    Own(Box<RawValue>),
}

impl<'de> Deserialize<'de> for SliceView {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Not derived: an untagged enum would buffer the value and lose its exact bytes.
        let raw = Box::<RawValue>::deserialize(from)?;
        if raw.get().starts_with('{') {
            return Ok(Self::Own(raw));
        }
        serde_json::from_str(raw.get()).map(Self::Other).map_err(serde::de::Error::custom)
    }
}

impl TenantView {
    /// The caller has made sure that the record concerns this tenant: a completion does not name it.
    pub fn new(line: &Line<'_>, tenant: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Owner {
            managed_tenant_id: String,
        }
        let raw = |text: &str| RawValue::from_string(text.to_owned());
        let slices = line
            .slices
            .iter()
            .map(|slice| {
                let owner: Owner = serde_json::from_str(slice)?;
                Ok(if owner.managed_tenant_id == tenant {
                    SliceView::Own(raw(slice)?)
                } else {
                    SliceView::Other(slice_digest(slice.as_bytes()))
                })
            })
            .collect::<Result<_, serde_json::Error>>()?;
        Ok(Self {
            seq: line.seq,
            line_type: line.line_type.as_str().to_owned(),
            prev: line.prev,
            hash: line.hash,
            visible: raw(line.visible)?,
            private: private_digest(line.private.as_bytes()),
            slices,
        })
    }

    /// Whether the hash fits what is shown.
    pub fn holds(&self) -> bool {
        if !LineType::ALL.iter().any(|known| known.as_str() == self.line_type) {
            return false;
        }
        let slices: Vec<Hash> = self
            .slices
            .iter()
            .map(|slice| match slice {
                SliceView::Other(digest) => *digest,
                SliceView::Own(bytes) => slice_digest(bytes.get().as_bytes()),
            })
            .collect();
        let visible = self.visible.get().as_bytes();
        Unplaced::new(&self.line_type, visible, self.private, &slices).place(self.seq, self.prev) == self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{
            encode,
            line::frame,
            record::{Opening, Slice},
        },
        domain::{DecisionId, Millis},
    };

    /// A consolidated record over `mine` and `theirs`, as the tenant `mine` gets it.
    fn shown() -> String {
        let slice = |tenant: &str| Slice { managed_tenant_id: tenant.to_owned(), ..Slice::default() };
        let slices = [slice("mine"), slice("theirs")];
        let opening = Opening {
            session_id: Some("secret-session"),
            slices: &slices,
            ..Opening::new(DecisionId::generate(), Millis(0), "GET", "/api/v1/partner/customers", "req_1")
        };
        let (mut body, mut out, mut hex) = (Vec::new(), Vec::new(), Hash::GENESIS.to_hex());
        let unplaced = encode::opening(&mut body, &opening);
        frame(&mut out, 3, LineType::Open, Hash::GENESIS, &mut hex, &body, unplaced);
        let line = Line::parse(out.trim_ascii_end()).unwrap();
        serde_json::to_string(&TenantView::new(&line, "mine").unwrap()).unwrap()
    }

    #[test]
    fn a_tenant_checks_its_part_and_sees_no_other() {
        let shown = shown();
        assert!(shown.contains("mine") && !shown.contains("theirs") && !shown.contains("secret-session"));
        assert!(serde_json::from_str::<TenantView>(&shown).unwrap().holds());
        for (from, to) in
            [("\"mine\"", "\"Mine\""), ("req_1", "req_2"), ("\"seq\":3", "\"seq\":4"), ("open", "complete")]
        {
            let forged: TenantView = serde_json::from_str(&shown.replacen(from, to, 1)).unwrap();
            assert!(!forged.holds(), "{from} to {to}");
        }
    }
}
