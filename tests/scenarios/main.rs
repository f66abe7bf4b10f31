//! Trivet's promises, each shown on a real cluster: one promise a file, in the folder of the state that it starts from.
//!
//! The tests run one at a time, in the order of their names, so that those with the same start follow each other and
//! find their state already there. Any of them may also run alone: each makes its state from whatever it finds.

/// The proxy with a fault that its image names.
const FAULTY: &str = env!("CARGO_BIN_EXE_faulty-proxy");

/// Nothing of Trivet is installed.
mod bare {
    mod a_release_that_shares_its_port_is_replaced_and_restored;
    mod an_empty_pool_serves_every_node;
    mod every_object_of_the_chart_is_as_committed;
    mod every_way_to_install_works;
}

/// Trivet serves every node, and the workers' kubelets and kube-proxies use it.
mod protecting {
    mod a_broken_proxy_harms_one_node_at_most;
    mod a_drained_master_is_safe_to_switch_off;
    mod a_killed_proxy_is_started_again;
    mod a_lost_master_costs_no_worker;
    mod a_master_that_loses_one_address_costs_nothing;
    mod a_master_without_etcd_is_left_gently;
    mod a_node_without_network_loses_no_idle_connection;
    mod a_path_that_drops_large_packets_is_left;
    mod a_real_client_misses_no_event;
    mod a_rolling_restart_fails_no_request;
    mod after_a_restore_from_a_backup_proxies_follow_again;
    mod an_upgrade_ends_no_connection;
    mod an_upgrade_refuses_no_client;
    mod each_node_judges_a_partition_for_itself;
    mod edits_reach_every_proxy_and_cost_no_connection;
    mod masters_that_hide_their_readiness_are_used;
    mod mistakes_of_an_administrator_cut_nobody_off;
    mod nothing_that_is_deleted_cuts_a_node_off;
    mod random_edits_cost_no_connection;
    mod the_last_resort_serves_while_no_other_answers;
    mod without_a_master_clients_are_told_at_once;
}

/// Trivet serves every node; what the kubelets use does not matter.
mod serving {
    mod a_broken_spec_changes_nothing;
    mod a_fault_of_one_node_is_named_and_the_others_serve;
    mod a_node_prefers_the_masters_of_its_zone;
    mod a_stolen_token_places_no_static_pod;
    mod an_edit_of_scope_takes_no_proxy;
    mod doctor_names_ten_planted_faults;
    mod names_tell_the_truth;
    mod other_listeners_serve;
    mod two_operators_write_as_one;
    mod what_nodes_depend_on_is_not_deleted_by_accident;
    mod when_a_node_is_lost_the_others_go_on;
}

/// As `protecting` or `standing_by`, with faults, upgrades and replacements of minutes, which `cargo xtask soak` runs.
mod soak {
    mod a_master_lost_for_minutes_costs_no_worker;
    mod a_proxy_that_does_nothing_harms_one_node_at_most;
    mod all_masters_are_replaced_one_by_one;
    mod external_dns_follows_the_names;
    mod many_upgrades_end_no_connection;
}

/// As `protecting`, and every node has a standby.
mod standing_by {
    mod a_manifest_that_cannot_be_written_is_named;
    mod a_power_cut_heals_by_itself;
    mod a_standby_serves_when_a_proxy_dies_or_hangs;
    mod alerts_fire_and_clear;
    mod retirement_leaves_nothing_on_a_node;
}
