//! A lot: some thousand records of one chain, and a Bloom filter of the words that they can be asked by.
//!
//! A filter says "certainly not here" or "look": a query skips the lots that say no, and looks at the columns of the
//! others. It costs a record a few bit operations, where an index over random keys costs a page of the file each. The
//! hash is written down here, because filters outlive the binary that made them.

use crate::audit::{Record, RecordFilter};

/// Records of a full lot. `n = lot * STRIDE + place`.
pub(super) const LOT_RECORDS: usize = 4_096;
pub(super) const STRIDE: i64 = 65_536;
/// 2^18 bits: with the five words of most records about one wrong "look" in two hundred.
const BYTES: usize = 32 * 1024;
const PROBES: u64 = 4;

/// A word with the field that it stands in, so that a user named like a tenant is another word.
#[derive(Clone, Copy)]
enum Field {
    Partner = 1,
    User,
    Tenant,
    Request,
    Action,
}

/// The words of one lot.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Terms(Vec<u8>);

impl Terms {
    pub(super) fn new() -> Self {
        Self(vec![0; BYTES])
    }

    /// A stored filter; one of another size says "look" to everything.
    pub(super) fn stored(bytes: Vec<u8>) -> Self {
        Self(if bytes.len() == BYTES { bytes } else { vec![0xff; BYTES] })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds every word of a record, the tenants of its slices included.
    pub(super) fn add(&mut self, record: &Record) {
        if let Some(partner) = record.partner_id {
            self.set(Field::Partner, partner.0.as_bytes());
        }
        for (field, word) in [
            (Field::User, &record.user_id),
            (Field::Tenant, &record.managed_tenant_id),
            (Field::Request, &record.request_id),
            (Field::Action, &record.action),
        ] {
            if let Some(word) = word {
                self.set(field, word.as_bytes());
            }
        }
        for slice in &record.slices {
            self.set(Field::Tenant, slice.managed_tenant_id.as_bytes());
        }
    }

    /// Whether a record with all the words of this filter may be here.
    pub(super) fn may_match(&self, filter: &RecordFilter) -> bool {
        let word = |field, word: &Option<String>| word.as_ref().is_none_or(|word| self.has(field, word.as_bytes()));
        filter.partner_id.is_none_or(|partner| self.has(Field::Partner, partner.0.as_bytes()))
            && word(Field::User, &filter.user_id)
            && word(Field::Tenant, &filter.managed_tenant_id)
            && word(Field::Request, &filter.request_id)
            && word(Field::Action, &filter.action)
    }

    fn set(&mut self, field: Field, word: &[u8]) {
        for bit in bits(field, word) {
            if let Some(byte) = self.0.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }

    fn has(&self, field: Field, word: &[u8]) -> bool {
        bits(field, word).all(|bit| self.0.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0))
    }
}

/// FNV-1a over field and word, mixed as splitmix64 does, then double hashing.
fn bits(field: Field, word: &[u8]) -> impl Iterator<Item = usize> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in std::iter::once(&(field as u8)).chain(word) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let (first, step) = (hash & 0xffff_ffff, (hash >> 32) | 1);
    (0..PROBES).map(move |probe| {
        let bit = first.wrapping_add(probe.wrapping_mul(step)) % (BYTES as u64 * 8);
        usize::try_from(bit).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_was_added_is_always_found_and_others_seldom() {
        let mut terms = Terms::new();
        for n in 0..LOT_RECORDS * 5 {
            terms.set(Field::Request, format!("req_{n}").as_bytes());
        }
        for n in 0..LOT_RECORDS * 5 {
            assert!(terms.has(Field::Request, format!("req_{n}").as_bytes()));
        }
        let wrong = (0..10_000).filter(|n| terms.has(Field::Request, format!("other_{n}").as_bytes())).count();
        assert!(wrong < 150, "{wrong} of 10,000");
        let elsewhere = (0..1_000).filter(|n| terms.has(Field::User, format!("req_{n}").as_bytes())).count();
        assert!(elsewhere < 30, "{elsewhere} of 1,000");
    }

    /// A stored filter must mean the same to every later binary: the bits of one word, fixed for good.
    #[test]
    fn the_hash_never_changes() {
        let found: Vec<usize> = bits(Field::Tenant, b"tenant-1").collect();
        assert_eq!(found, EXPECTED);
        assert!(Terms::stored(vec![1, 2, 3]).has(Field::User, b"anyone"), "an unknown form says look");
    }

    const EXPECTED: [usize; 4] = [247526, 81217, 177052, 10743];
}
