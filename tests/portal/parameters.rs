//! Each wrong parameter is 422 with an entry of its own; what is right is not.

use super::{
    client::Request,
    rig::{BASE, Rig},
};

#[test]
fn each_wrong_parameter_is_told() {
    let rig = Rig::start();
    let dates = [
        "from_date=2026-13-01",
        "to_date=yesterday",
        "from_date=2026-01-01T10:00",
        "from_date=2026-02-01&to_date=2026-01-01",
        "from_date=0000-01-01",
        "from_date=0001-01-01T00:00:00%2B14:00",
        "to_date=2026-01-01T00:00:00%2B25:00",
        "to_date=2016-12-31T23:59:60Z",
        "from_date=9999-12-31&to_date=9999-12-31",
    ];
    let lists = ["limit=0", "limit=101", "limit=x", "offset=-1", "offset=9951", "sort_by=colour", "sort_order=up"];
    let wish = ["strict=maybe", "sources=some", "colour=red", "tenant_ids=", "tenant_ids=t-full,", "limit=5&limit=6"];
    let cases: Vec<(&str, Vec<&str>)> = vec![
        (
            "/customers",
            [&lists[..], &["status=gone", "search=", "from_date=2026-01-01", "tenant_ids=t-full", "limit=5&limit=6"]]
                .concat(),
        ),
        ("/customers/t-full", vec!["limit=5", "strict=1", "colour=red"]),
        ("/billing/summary", [&dates[..], &wish[..4], &["currency=dollars", "status=open", "limit=5"]].concat()),
        (
            "/billing/invoices",
            [&dates[..], &lists, &wish, &["status=open", "min_amount=x", "min_amount=5&max_amount=4", "currency=USD"]]
                .concat(),
        ),
        (
            "/support/tickets",
            [
                &lists[..5],
                &wish,
                &[
                    "status=in_progress",
                    "priority=medium",
                    "created_from=x",
                    "created_from=0000-01-01",
                    "created_to=2016-12-31T23:59:60Z",
                    "created_from=9999-12-31&created_to=9999-12-31",
                    "created_from=2026-02-01&created_to=2026-01-01",
                    "from_date=2026-01-01",
                    "sort_by=created_at",
                ],
            ]
            .concat(),
        ),
        ("/reports/usage", [&dates[..], &wish[..4], &["group_by=hour", "limit=5"]].concat()),
        (
            "/reports/sla",
            [
                &dates[..],
                &wish[..4],
                &[
                    "target_percentage=100.1",
                    "target_percentage=-1",
                    "target_percentage=x",
                    "from_date=2020-01-01",
                    "limit=5",
                ],
            ]
            .concat(),
        ),
    ];
    for (path, queries) in cases {
        for query in queries {
            let (status, code, fields) = rig.refused(&format!("{path}?{query}"));
            assert_eq!((status, &*code), (422, "VALIDATION_ERROR"), "{path}?{query}");
            let name = query.split('=').next().unwrap();
            assert!(fields.iter().any(|field| field == name), "{path}?{query}: {fields:?}");
        }
    }
    let (_, _, fields) = rig.refused("/billing/invoices?limit=0&status=open&colour=red&to_date=x");
    assert_eq!(fields.len(), 4, "one entry a field: {fields:?}");
    assert_eq!(rig.service.asked_in_all(), 0, "nothing was asked for a question that is none");
}

#[test]
fn head_tells_the_length_and_sends_nothing() {
    let rig = Rig::start();
    for path in [
        "/customers",
        "/customers/t-full",
        "/billing/summary",
        "/billing/invoices",
        "/support/tickets",
        "/reports/usage",
        "/reports/sla",
    ] {
        let path = format!("{BASE}{path}");
        let get = rig.ask(Request::get(&path));
        let head = rig.ask(Request::new("HEAD", &path));
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
    }
}

#[test]
fn one_version_of_the_api_is_spoken() {
    let rig = Rig::start();
    let ask = |version: &str| rig.ask(Request::get(&format!("{BASE}/me")).header("X-API-Version", version));
    assert_eq!(ask("1").status, 200);
    for version in ["2", "", "1.0", "v1"] {
        let refused = ask(version);
        assert_eq!((refused.status, &*refused.error()), (400, "BAD_REQUEST"), "{version}");
    }
}
