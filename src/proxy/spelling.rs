//! Names that some reader could take for one that is watched: of query parameters, of cookies, of fields in JSON.
//!
//! Readers differ in case, in what they trim, and in what they make of dots and brackets. Whatever any of them takes for
//! the name counts as the name: one parameter too many that is dropped does less harm than one too few.

/// Whether two names differ in case alone, by any reader's idea of it (`ſ` is an `s`, `K` may be the sign for Kelvin).
pub fn same(name: &str, wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted)
        || (!(name.is_ascii() && wanted.is_ascii()) && alike(name.chars(), wanted.chars()))
}

/// Whether a parameter or cookie of this name, decoded before, could be read as the wanted one.
pub fn reads_as(name: &str, wanted: &str) -> bool {
    let edge = |letter: char| letter.is_whitespace() || letter.is_control();
    let name = name.trim_matches(edge);
    // Readers in C see no further.
    let name = name.split('\0').next().unwrap_or(name).trim_end_matches(edge);
    let before_index = name.split('[').next().unwrap_or(name).trim_end_matches(edge);
    let same = |name: &str| alike(name.chars().map(as_php), wanted.chars().map(as_php));
    // A bracket that nothing closes is no index.
    same(before_index) || (!name.contains(']') && same(name))
}

/// PHP makes such names ones that a variable can have.
fn as_php(letter: char) -> char {
    if matches!(letter, '.' | ' ' | '[') { '_' } else { letter }
}

fn alike(one: impl Iterator<Item = char>, other: impl Iterator<Item = char>) -> bool {
    let folded = |letter: char| letter.to_uppercase().flat_map(char::to_lowercase);
    one.flat_map(folded).eq(other.flat_map(folded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_no_difference_in_any_script() {
        for (one, other) in
            [("tenant_id", "Tenant_ID"), ("mask", "ma\u{17f}\u{212a}"), ("tenant_id", "tenant_\u{131}d")]
        {
            assert!(same(one, other) && same(other, one), "{one} {other}");
        }
        assert!(!same("tenant_id", "tenant.id") && !same("tenant_id", "tenant_ids"));
    }

    #[test]
    fn every_spelling_that_some_reader_takes_for_the_name_is_found() {
        for name in [
            "tenant_id",
            "TENANT_ID",
            "tenant.id",
            "tenant id",
            "tenant[id",
            " tenant_id\t",
            "\0tenant_id",
            "tenant_id\0x",
            "tenant_id \0x",
            "tenant_id[]",
            "tenant_id [a][b]",
            "tenant.id[x]",
            "tenant_id[",
        ] {
            assert!(reads_as(name, "tenant_id"), "{name:?}");
        }
        for name in ["tenant_ids", "my_tenant_id", "tenant", "tenant[id]", "tenant-id", "id[tenant_id]", "a\0tenant_id"]
        {
            assert!(!reads_as(name, "tenant_id"), "{name:?}");
        }
        assert!(reads_as("app.sid", "app.sid") && reads_as("app_sid", "app.sid"));
    }
}
