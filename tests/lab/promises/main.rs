//! The proxy's promises under faults, with numbers. One file is one promise; each test has its own lab.
//!
//! Bounds count from the end of the command that makes the fault. The share of the machine is added to them: twice the
//! slowest connection of the same client to a healthy apiserver, without the proxy, in the same time.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

mod a_blackholed_member_costs_no_new_connection;
mod a_broken_cache_is_survived;
mod a_certificate_warns_and_judges_nothing;
mod a_flapping_member_is_held_down;
mod a_full_disk_is_survived;
mod a_hung_member_costs_no_new_connection;
mod a_killed_member_costs_no_new_connection;
mod a_local_fault_ejects_nobody;
mod a_member_that_is_not_ready_gets_no_new_connection;
mod a_member_without_etcd_is_left_gradually;
mod a_node_without_members_is_told_at_once;
mod a_one_way_partition_is_a_partition;
mod a_path_that_drops_large_packets_is_down;
mod a_rolling_restart_fails_no_request;
mod a_slow_member_is_never_cut;
mod a_stranger_in_the_pool_costs_nothing;
mod an_old_document_is_a_last_resort;
mod both_families_are_served;
mod clients_that_are_not_on_the_node_are_dropped;
mod clients_that_say_nothing_cost_no_apiserver;
mod exhausted_files_are_waited_for;
mod idle_connections_outlive_a_fault_of_seven_seconds;
mod members_that_hide_their_readiness_are_up;
mod memory_is_bounded;
mod new_authorities_cost_no_connection;
mod one_address_that_fails_costs_no_connection;
mod probes_never_exceed_their_rate;
mod support;
mod when_all_are_gone_clients_are_told;
mod when_none_is_ready_nothing_is_cut;
