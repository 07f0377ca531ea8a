//! Loading a policy set: what is accepted, what is refused and how it is said.

use linkgate::policy::Bundle;

#[test]
fn the_shipped_set_loads_without_a_warning() {
    let bundle = Bundle::load(None).unwrap_or_else(|errors| panic!("{}", errors.render()));
    assert!(bundle.warnings().is_empty(), "{:?}", bundle.warnings());
    assert_eq!(bundle.version().len(), 64);
}
