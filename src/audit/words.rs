//! What a record is found by: its words, as hashes.
//!
//! A word is a value together with the field that it stands in, so that a user named like a tenant is another word. The
//! index keeps the words of a run of lines in a filter, and looks only into the runs whose filter holds every word of
//! the question. Filters outlive the binary that made them, so the hash is written down here, fixed for good.

use super::joined::RecordFilter;

/// Where a word stands. The numbers are part of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Id = 1,
    Request,
    Partner,
    User,
    Tenant,
    Action,
    Decision,
    Kind,
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const STEP: u64 = 0xbf58_476d_1ce4_e5b9;
const LAST: u64 = 0x94d0_49bb_1331_11eb;

/// Hash of a word. `text` is the value as a reader sees it, not as JSON escapes it; uuids in lower case with hyphens.
pub fn word(field: Field, text: &[u8]) -> u64 {
    let (chunks, rest) = text.as_chunks::<8>();
    let mut tail = [0; 8];
    for (to, from) in tail.iter_mut().zip(rest) {
        *to = *from;
    }
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let begin = SEED ^ (length << 8) ^ u64::from(field as u8);
    let state = chunks.iter().fold(begin, |state, chunk| folded(state ^ u64::from_le_bytes(*chunk), STEP));
    folded(folded(state ^ u64::from_le_bytes(tail), STEP), LAST)
}

/// Both halves of the product, one upon the other.
fn folded(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    // Cutting is meant.
    (product as u64) ^ ((product >> 64) as u64)
}

impl RecordFilter {
    /// The words that every record has which this filter matches.
    pub fn words(&self) -> Vec<u64> {
        let id = self.id.map(|id| id.to_string());
        let partner = self.partner_id.map(|partner| partner.to_string());
        [
            (Field::Id, id.as_deref()),
            (Field::Request, self.request_id.as_deref()),
            (Field::Partner, partner.as_deref()),
            (Field::User, self.user_id.as_deref()),
            (Field::Tenant, self.managed_tenant_id.as_deref()),
            (Field::Action, self.action.as_deref()),
            (Field::Decision, self.decision.map(super::Decision::as_str)),
            (Field::Kind, self.kind.map(super::Kind::as_str)),
        ]
        .into_iter()
        .filter_map(|(field, text)| Some(word(field, text?.as_bytes())))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A stored filter must mean the same to every later binary.
    #[test]
    fn the_hash_never_changes() {
        let found = [
            word(Field::Tenant, b""),
            word(Field::Tenant, b"tenant-1"),
            word(Field::User, b"tenant-1"),
            word(Field::Request, b"7d0f6d6e-6d9a-4a5f-9f44-2f6b6a0d2f11"),
        ];
        assert_eq!(found, EXPECTED, "{found:#x?}");
    }

    const EXPECTED: [u64; 4] =
        [0x6bf0_41b1_0c14_203f, 0xd8a5_14f4_b0c1_3718, 0xb5d7_6f21_7574_cd3d, 0x7a73_8ca7_6fca_1acf];

    #[test]
    fn words_differ() {
        let mut seen = HashSet::new();
        for n in 0..50_000 {
            for field in [Field::User, Field::Tenant] {
                assert!(seen.insert(word(field, format!("req_{n}").as_bytes())));
            }
        }
        let zeros: HashSet<u64> = (0..40).map(|length| word(Field::Id, &vec![0; length])).collect();
        assert_eq!(zeros.len(), 40);
        // Every bit is as often set as not: filters take their places from any of them.
        for bit in 0..64 {
            let set = seen.iter().filter(|word| *word >> bit & 1 == 1).count();
            assert!((48_500..51_500).contains(&set), "bit {bit}: {set}");
        }
    }
}
