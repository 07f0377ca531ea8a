//! The store's contract: one suite, run on SQLite and on Postgres.
//!
//! Every test is written once over a [`fixture::Fixture`] and listed in `on_both!`. The Postgres half needs a server:
//! `tests/run` starts one and names it in `LINKGATE_TEST_POSTGRES`; without it those tests fail rather than skip.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, which is what it is for"
)]

mod fixture;

mod access;
mod alerts;
mod audit;
mod broken_writes;
mod census;
mod chains;
mod delegation;
mod evidence;
mod faults;
mod freshness;
mod governance;
mod import;
mod kept;
mod links;
mod retention;
mod schema;
mod size;
mod suspensions;
mod webhooks;
mod writes;

/// Makes a test of each database out of one function over a fixture.
macro_rules! on_both {
    ($($module:ident :: $name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { crate::fixture::run(crate::fixture::Kind::Sqlite, crate::$module::$name); })+
        }
        mod postgres {
            $(#[test] fn $name() { crate::fixture::run(crate::fixture::Kind::Postgres, crate::$module::$name); })+
        }
    };
}

/// The same of what only Postgres has.
macro_rules! on_postgres {
    ($($module:ident :: $name:ident),+ $(,)?) => {
        mod postgres_only {
            $(#[test] fn $name() { crate::fixture::run(crate::fixture::Kind::Postgres, crate::$module::$name); })+
        }
    };
}

/// The same of what only SQLite has.
macro_rules! on_sqlite {
    ($($module:ident :: $name:ident),+ $(,)?) => {
        mod sqlite_only {
            $(#[test] fn $name() { crate::fixture::run(crate::fixture::Kind::Sqlite, crate::$module::$name); })+
        }
    };
}

on_sqlite! {
    broken_writes::a_transaction_that_sqlite_ended_itself_stops_no_later_write,
    broken_writes::the_audit_index_goes_on_likewise,
    broken_writes::a_lock_held_by_another_process_is_told_and_is_over_by_itself,
    broken_writes::a_refused_change_is_no_trouble_of_the_file,
    broken_writes::a_file_that_is_no_database_is_told_by_name,
    broken_writes::a_file_that_may_not_be_opened_is_told_by_name,
}

on_postgres! {
    kept::a_journal_in_the_database_ages_like_one_on_disk,
    kept::what_is_held_up_stays_and_what_lies_before_it_goes,
    kept::a_server_that_died_within_a_pruning_leaves_all_or_nothing,
    kept::whoever_lost_the_chain_takes_nothing_from_it,
    kept::journals_of_servers_that_are_gone_age_like_all_others,
    kept::a_server_that_is_idle_loses_nothing_of_the_index,
}

on_both! {
    schema::an_unmigrated_database_is_told_and_migrating_twice_is_harmless,
    schema::many_may_migrate_at_once,
    schema::a_database_that_a_newer_binary_expanded_is_good,
    schema::a_newer_database_is_told,
    schema::a_migration_that_fails_leaves_nothing_half_done,
    schema::a_migration_that_waits_for_a_table_holds_up_nobody,
    schema::rows_of_links_and_history_are_never_deleted,
    schema::the_database_upholds_the_rules_itself,
    links::a_link_keeps_every_field,
    links::every_rule_refuses_at_the_way_in,
    links::a_change_is_history_audit_and_version_at_once,
    links::a_revoked_or_ended_pair_is_granted_again_in_the_same_row,
    links::an_update_needs_the_version_it_was_read_at,
    links::a_refused_change_leaves_nothing_behind,
    links::an_ended_full_role_makes_room,
    links::only_one_of_many_writers_gets_the_full_role,
    links::approval_falls_back_where_something_widens,
    links::revoke_all_revokes_everything_of_one_partner,
    links::what_people_are_shown_holds_no_controls,
    links::partners_tenants_and_users_keep_their_fields,
    delegation::a_delegated_link_is_bounded_by_its_parents,
    delegation::a_change_of_a_parent_raises_all_below_at_once,
    delegation::a_broken_chain_stays_closed,
    chains::chains_attenuate_and_decide_as_the_contract_says,
    governance::everyone_who_widened_is_barred_from_approving,
    governance::rows_from_before_bar_their_writers,
    governance::an_approval_of_what_changed_meanwhile_is_refused,
    governance::a_delegated_link_ends_with_its_parent_and_is_told_once,
    governance::what_a_suspension_would_cover_is_counted,
    access::a_link_is_told_as_it_was,
    access::parents_of_then_bind_a_link_of_then,
    access::what_has_no_history_is_told_as_of_now,
    access::a_thousand_links_are_one_question,
    import::a_refused_row_does_not_stop_the_others,
    import::an_import_that_stops_tells_what_it_took,
    suspensions::the_overlay_covers_and_lifts_without_touching_rows,
    suspensions::subjects_are_known_everywhere_within_the_bound,
    freshness::a_portfolio_holds_all_links_of_one_partner,
    freshness::unknown_partners_and_members_are_remembered_until_they_are_known,
    freshness::a_change_by_another_process_is_seen_within_a_second,
    freshness::a_noticed_change_is_in_force_at_once,
    freshness::a_load_overtaken_by_a_change_is_never_answered,
    freshness::a_load_published_before_its_change_is_seen_dies_with_it,
    freshness::loads_of_one_partner_are_one_load,
    freshness::a_pruned_change_log_reloads_everything,
    freshness::a_counter_that_went_back_reloads_everything,
    audit::a_batch_is_stored_once_with_its_position,
    audit::only_one_of_two_indexers_advances_a_chain,
    audit::a_completion_of_an_earlier_batch_is_joined,
    audit::every_filter_finds_what_it_should,
    audit::records_of_many_chunks_are_found_newest_first,
    audit::small_chunks_become_large_ones,
    audit::a_journal_that_is_not_there_is_told,
    audit::an_altered_line_is_no_answer,
    audit::use_of_rights_is_added_up_over_all_that_is_indexed,
    audit::the_head_outlives_the_index,
    audit::each_change_is_chained_by_one_server,
    evidence::a_tree_and_its_checkpoints_are_kept_and_gone_on_with,
    evidence::every_tenant_gets_proofs_of_its_records_and_of_no_others,
    evidence::what_is_pruned_leaves_proofs_of_the_rest,
    retention::old_records_go_and_the_chain_tells_of_it,
    retention::what_is_not_shipped_stays_and_what_lies_before_it_goes,
    retention::months_are_there_and_go_as_a_whole,
    retention::what_was_indexed_before_there_were_months_is_found_and_goes,
    audit::changes_of_a_server_that_is_gone_are_freed_once,
    faults::a_database_that_is_away_shows_as_stale_and_comes_back,
    alerts::an_alert_lives_from_active_to_resolved_and_may_come_again,
    alerts::an_incident_is_one_alert_for_ever,
    alerts::many_readings_at_once_make_one_alert,
    alerts::one_replica_at_a_time_looks_at_a_link,
    alerts::acknowledging_is_done_once_and_loses_against_resolving,
    webhooks::subscriptions_keep_their_fields_and_never_show_a_secret,
    webhooks::secrets_are_sealed_at_rest_and_sealed_anew_with_another_key,
    webhooks::an_event_is_committed_with_what_it_tells_of,
    webhooks::what_waits_for_ever_is_forgotten_too,
    webhooks::partners_below_a_link_are_told_what_becomes_of_theirs,
    webhooks::a_delivery_is_claimed_by_one_and_tried_until_it_is_done,
    webhooks::one_subscription_does_not_hold_up_the_others,
    webhooks::times_of_a_clock_that_was_wrong_hold_up_no_delivery,
    webhooks::the_end_of_a_link_is_announced_once_for_each_number_of_days,
    size::a_thousand_links_and_a_hundred_thousand,
    census::what_waits_is_counted_and_what_is_done_is_not,
    writes::a_key_is_claimed_by_one_of_many,
    writes::a_claim_keeps_its_outcome_across_restarts,
    writes::an_outcome_waits_for_the_database_and_is_told_meanwhile,
    writes::an_outcome_that_waits_settles_no_other_claim,
    writes::a_stop_brings_outcomes_once_more_and_waits_for_no_database,
    writes::an_export_is_leased_to_one_worker_at_a_time,
    writes::no_partners_exports_hold_up_those_of_others,
    writes::a_lease_that_ran_out_goes_to_the_next_worker,
    writes::an_export_is_its_owners_and_expires,
}
