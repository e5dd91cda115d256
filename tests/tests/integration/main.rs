//! Passerby's promises, each against real servers: a module for each promise, a test for each way to
//! break it.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod ack_follows_commit;
mod backlogs_are_measured;
mod bad_input_is_explained;
mod bad_rows_cost_no_neighbours;
mod books_balance;
mod commands_explain_bad_input;
mod consumers_come_and_go;
mod dead_letters_are_steered;
mod demo_stores_every_detection;
mod deployment;
mod detections_are_small_in_redis;
mod doctor_finds_what_will_hurt;
mod drills;
mod entries_are_looked_into;
mod entries_of_the_dead_are_taken_over;
mod hands_have_altered_things;
mod health_is_told;
mod help_is_complete;
mod ingest_stores_nothing_twice;
mod ledgers_are_looked_after;
mod ledgers_forget_safely;
mod logs_say_enough_and_no_more;
mod memory_is_bounded;
mod metrics_are_what_the_docs_say;
mod migrations_run_once;
mod newest_track_wins;
mod nothing_accepted_is_lost;
mod nothing_is_stored_twice;
mod old_detections_are_dropped;
mod operators_commands;
mod output_is_as_committed;
mod partitions_are_looked_after;
mod partitions_are_there_when_needed;
mod pausing_is_obeyed;
mod producer_keeps_its_books;
mod queries_answer;
mod replays_store_nothing_twice;
mod saturation_is_felt;
mod sessions_can_be_closed;
mod sessions_count_people;
mod settings_come_from_files_too;
mod silence_is_noticed;
mod spools_outlive_pipelines;
mod stopping_is_graceful;
mod store_keeps_what_it_is_given;
mod strangers_need_one_command;
mod streams_are_trimmed_safely;
mod support_bundles_hold_no_secret;
mod the_pipeline_never_waits;
#[cfg(target_os = "linux")] // it asks `/proc` for a process
mod top_gives_the_terminal_back;
mod top_shows_everything;
mod traces_are_carried_through;
mod workers_heal;
