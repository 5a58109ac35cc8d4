//! The rules as properties: of what a pass saw and planned, and of what it leaves for the next. The property tests
//! check them over generated cases, the simulation over what real passes saw.

pub mod facts;
pub mod invariants;
pub mod leaving;
pub mod memory;
pub mod rerun;
pub mod room;
pub mod tidying;
pub mod turns;
pub mod warm;

use std::time::Duration;

pub use facts::Facts;
use githubrunner::{
    model::{Moment, Observation, Plan},
    plan::Policy,
};
pub use memory::{Lesson, learned, reports_of};
use proptest::test_runner::TestCaseError;

/// `Ok` if a property holds, or else why not.
pub type Checked = Result<(), TestCaseError>;

/// A property of an observation and its plan.
pub type Property = (&'static str, fn(&Facts, &Plan) -> Checked);

/// A property of what a pass saw and did, and what it leaves.
pub type MemoryProperty = (&'static str, fn(&Lesson) -> Checked);

/// What labels request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// A runner.
    Runner,
    /// A runner, but the labels may not be rendered: a hold says why.
    Word,
    /// No runner of ours.
    Nothing,
}

/// The planner's input.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// What was seen.
    pub observation: &'a Observation,
    /// The policy.
    pub policy: &'a Policy,
    /// Our own clock.
    pub now: Moment,
    /// What labels request. It is passed in, so that the label rules do not judge themselves.
    pub asks: fn(&[String]) -> Asks,
}

/// The maximum length of a message, in characters.
const LONGEST: usize = 500;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The names of all properties by subject, passed to another macro.
#[macro_export]
macro_rules! properties {
    (invariants, $what:ident) => {
        $what! { invariants:
            no_plan_exceeds_a_cap,
            no_plan_exceeds_a_cap_of_a_class,
            each_start_is_of_the_class_of_its_job,
            nothing_that_runs_is_stopped_without_consent_and_nothing_busy_at_all,
            what_is_not_ours_is_touched_only_when_dead,
            what_was_not_seen_in_this_pass_neither_starts_nor_stops,
            nothing_is_done_while_nomad_is_unseen,
            an_unseen_namespace_costs_only_its_classes,
            a_group_never_starts_and_stops_in_one_plan,
            each_job_starts_one_runner_under_the_next_number,
            names_are_unique_valid_and_always_the_same,
            waits_are_obeyed,
            no_more_than_two_attempts_of_a_job_are_alive,
            what_is_stuck_is_told,
            every_queued_job_has_a_runner_to_spare_a_start_or_a_hold,
            the_oldest_job_goes_first,
            caps_are_the_reason_where_they_are_given_as_one,
            what_people_read_is_harmless,
            a_runner_is_stopped_once_and_then_nothing_is_held_of_it,
        }
    };
    (turns, $what:ident) => {
        $what! { turns:
            places_go_in_turn,
            places_are_kept_for_those_whose_turn_is_sooner,
            who_waits_for_a_turn_is_told_whose,
        }
    };
    (leaving, $what:ident) => {
        $what! { leaving:
            surplus_goes_only_when_seen_twice_and_idle_runners_after_their_time,
            surplus_that_may_go_goes,
            the_oldest_idle_runner_leaves_first,
            verifications_ask_only_for_idle_runners_and_not_too_often,
            an_unregistered_runner_is_let_go_after_ten_minutes_of_verifications,
            what_is_spent_goes_and_is_never_issued_again,
            what_does_not_start_in_time_is_stopped,
            draining_nodes_are_left_by_runners_without_a_job,
            what_runs_for_too_long_is_announced_and_then_stopped,
            runners_of_a_repository_gone_for_an_hour_go_if_they_never_started,
        }
    };
    (room, $what:ident) => {
        $what! { room:
            room_is_made_by_idle_runners_that_no_job_needs_and_for_no_more_than_waits,
            the_idle_do_not_stay_while_something_waits_for_room,
            the_unplaced_yield_to_another_groups_start,
            the_stuck_yield_to_another_group,
            nobody_makes_room_in_a_repository_that_was_not_seen,
            room_is_made_only_where_it_helps,
        }
    };
    (tidying, $what:ident) => {
        $what! { tidying:
            whoever_is_placed_and_waits_gets_its_secret_and_nobody_else,
            a_dead_runners_variable_goes_at_once,
            the_dead_are_purged_after_their_timeout_and_not_while_they_count,
            a_purge_names_the_repository_where_a_registration_may_be_left,
            orphans_go_after_a_while_and_nothing_else,
        }
    };
    (rerun, $what:ident) => {
        $what! { rerun:
            only_what_was_lost_is_run_again,
            a_loss_is_made_good_once,
            lost_jobs_are_run_again_within_the_budgets,
            what_was_lost_is_run_again_or_it_is_said_why_not,
            what_says_of_a_rerun_is_forgotten_after_a_week,
        }
    };
    (warm, $what:ident) => {
        $what! { warm:
            an_entry_gets_no_more_than_it_asks_for_and_none_outside_its_schedule,
            failures_of_an_entry_make_it_wait_and_no_other,
            an_entry_has_its_runners_or_a_hold,
            no_warm_runner_takes_a_place_from_a_job,
            warm_runners_leave_when_they_are_not_wanted,
            a_job_is_left_to_an_idle_warm_runner_for_a_minute,
            a_warm_runner_that_is_passed_over_is_told,
            warm_runners_make_room_for_what_waits,
            no_idle_warm_runner_stays_at_the_cap_while_a_job_waits,
        }
    };
    (memory_of_warm, $what:ident) => {
        $what! { warm:
            since_when_a_job_is_left_is_remembered,
            rejected_warm_starts_wait,
        }
    };
    (memory, $what:ident) => {
        $what! { memory:
            what_is_planned_is_done_in_its_order_or_not_at_all,
            a_pass_that_sees_nothing_teaches_nothing,
            nothing_is_remembered_of_what_is_no_more,
            what_was_not_lost_is_remembered,
            the_surplus_is_that_of_the_last_complete_listing,
            the_busy_are_remembered,
            absence_counts_from_its_first_sight_and_a_sign_of_life_ends_it,
            the_last_start_of_each_repository_is_remembered,
            an_orphan_counts_from_the_first_pass_that_saw_it,
            failed_actions_wait_longer_each_time_and_success_ends_that,
            refused_starts_are_held_for_ten_minutes,
            rejected_starts_wait_longer_each_time_and_success_ends_that,
        }
    };
}

macro_rules! listed {
    ($module:ident: $($name:ident,)*) => { &[$((stringify!($name), $module::$name)),*] };
}

/// Every property of a single plan.
pub const PROPERTIES: [&[Property]; 7] = [
    properties!(invariants, listed),
    properties!(turns, listed),
    properties!(leaving, listed),
    properties!(room, listed),
    properties!(tidying, listed),
    properties!(rerun, listed),
    properties!(warm, listed),
];

/// Every property of what a pass leaves for the next.
pub const OF_MEMORY: [&[MemoryProperty]; 2] =
    [properties!(memory, listed), properties!(memory_of_warm, listed)];

/// Which properties of a single plan do not hold, and why.
pub fn broken_by(seen: Seen, plan: &Plan) -> Vec<String> {
    let facts = Facts::new(seen);
    let broken = |(name, property): &Property| Some(format!("{name}: {}", why(property(&facts, plan))?));
    PROPERTIES.iter().copied().flatten().filter_map(broken).collect()
}

/// Which properties of memory do not hold, and why.
pub fn wrongly_remembered(lesson: &Lesson) -> Vec<String> {
    let broken = |(name, property): &MemoryProperty| Some(format!("{name}: {}", why(property(lesson))?));
    OF_MEMORY.iter().copied().flatten().filter_map(broken).collect()
}

/// Why a property does not hold, in one line. The position in the file does not help users of the simulation.
fn why(checked: Checked) -> Option<String> {
    let (TestCaseError::Fail(reason) | TestCaseError::Reject(reason)) = checked.err()?;
    let text = reason.message();
    let text = text.rfind(" at ").filter(|at| text[*at..].contains(".rs:")).map_or(text, |at| &text[..at]);
    let line: Vec<&str> = text.split_whitespace().collect();
    Some(line.join(" ").chars().take(LONGEST).collect())
}
