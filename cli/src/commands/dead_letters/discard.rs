//! `passerby dead-letters discard`: sets letters aside, restores them, and purges what was set aside long ago.

use std::time::Duration;

use clap::Args;
use passerby_consumer::{
    args::{DatabaseArgs, parse_duration},
    store::{DeadLetterCount, DeadLetterFilter, Discard, LetterState, Store},
};
use serde::Serialize;

use super::{
    filter::{FilterArgs, State},
    list::write_counts,
    open,
};
use crate::{
    commands::{Failure, confirm, operator, output},
    render::{Output, counted, duration},
};

#[derive(Debug, Args)]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// All of which nobody has decided yet, where nothing else is asked for.
    #[arg(long)]
    all: bool,
    /// Why they are not to be stored; kept with the letters.
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present_any = ["restore", "purge", "dry_run"]
    )]
    because: Option<String>,
    /// Who decides it; kept with the letters [default: the user and the machine].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Let discarded letters wait again.
    #[arg(long, conflicts_with_all = ["purge", "because", "all"])]
    restore: bool,
    /// Destroy letters that were discarded long ago. This cannot be undone.
    #[arg(long, requires = "older_than", conflicts_with_all = ["because", "all"])]
    purge: bool,
    /// With --purge: only those that were discarded so long ago.
    #[arg(long, value_name = "TIME", requires = "purge", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Say how many match, by reason, and change none.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Discarded {
    /// What is done with the letters: `discarded`, `restored` or `purged`.
    action: &'static str,
    /// Letters that matched.
    matched: u64,
    /// Letters that were changed; others were, by somebody else, in between.
    changed: u64,
    /// Those that matched, by reason.
    by_reason: Vec<DeadLetterCount>,
}

/// What is done with the letters.
enum Action {
    Discard(Discard),
    Restore,
    Purge(Duration),
}

pub(super) async fn discard(args: DiscardArgs) -> Result<(), Failure> {
    let (action, state) = if let Some(older_than) = args.older_than.filter(|_| args.purge) {
        (Action::Purge(older_than), LetterState::Discarded)
    } else if args.restore {
        (Action::Restore, LetterState::Discarded)
    } else {
        let discard = Discard {
            by: args.by.clone().unwrap_or_else(operator),
            reason: args.because.clone().unwrap_or_default(),
        };
        let state = match args.filter.state() {
            Some(State::Requeued) => LetterState::Requeued,
            _ => LetterState::Waiting,
        };
        (Action::Discard(discard), state)
    };
    if args
        .filter
        .state()
        .is_some_and(|asked| LetterState::from(asked) != state)
    {
        return Err(Failure::usage(format_args!(
            "--state: only letters that are {} can be meant",
            state.as_str()
        )));
    }
    if matches!(action, Action::Discard(_)) && !args.filter.is_given() && !args.all {
        return Err(Failure::usage(
            "which letters? Name their numbers, filter them, or add --all",
        ));
    }
    let mut store = open(&args.database).await?;
    let mut filter = DeadLetterFilter {
        state: Some(state),
        ..args.filter.filter(i64::MAX)
    };
    if let Action::Purge(older_than) = action {
        filter.discarded_before = Some(chrono::Utc::now() - older_than);
    }
    // What comes in while somebody thinks about the question was not meant.
    filter.up_to = Some(store.last_dead_letter().await.map_err(Failure::store)?);
    let counts = store
        .count_dead_letters(&filter)
        .await
        .map_err(Failure::store)?;
    let n_matched: u64 = counts.iter().map(DeadLetterCount::total).sum();
    args.filter
        .check_named(usize::try_from(n_matched).unwrap_or(usize::MAX))?;
    if args.dry_run || n_matched == 0 {
        if args.json {
            output::json(&Discarded {
                action: action.done(),
                matched: n_matched,
                changed: 0,
                by_reason: counts,
            });
        } else {
            output::line(&matching(n_matched, state));
            if n_matched > 0 {
                write_counts(&counts, Output::Table);
            }
        }
        return Ok(());
    }
    if !args.yes {
        output::warning(&by_reason(&counts));
    }
    confirm(args.yes, &action.question(n_matched))?;
    let n_changed = action
        .run(&mut store, &filter)
        .await
        .map_err(Failure::store)?;
    if args.json {
        output::json(&Discarded {
            action: action.done(),
            matched: n_matched,
            changed: n_changed,
            by_reason: counts,
        });
    } else {
        output::line(&format!(
            "{} {}",
            counted(n_changed, "dead letter"),
            action.done()
        ));
    }
    Ok(())
}

fn matching(n: u64, state: LetterState) -> String {
    let verb = if n == 1 { "matches" } else { "match" };
    format!(
        "{} that {} {} {verb}",
        counted(n, "dead letter"),
        if n == 1 { "is" } else { "are" },
        state.as_str()
    )
}

/// How many of which reason: what the question is about.
fn by_reason(counts: &[DeadLetterCount]) -> String {
    let lines: Vec<String> = counts
        .iter()
        .map(|count| {
            let details = [count.sqlstate.as_deref(), count.field.as_deref()];
            let details: Vec<&str> = details.into_iter().flatten().collect();
            let details = if details.is_empty() {
                String::new()
            } else {
                format!(" ({})", details.join(", "))
            };
            format!(
                "  {} {}{details}, from {} to {}",
                counted(count.total(), "letter"),
                count.reason,
                count.oldest.format("%Y-%m-%d %H:%M:%S"),
                count.newest.format("%Y-%m-%d %H:%M:%S"),
            )
        })
        .collect();
    lines.join("\n")
}

impl Action {
    fn question(&self, n: u64) -> String {
        let letters = counted(n, "dead letter");
        match self {
            Self::Discard(_) => format!("discard {letters}"),
            Self::Restore => format!("let {letters} wait again"),
            Self::Purge(older_than) => format!(
                "destroy {letters}, discarded more than {} ago, for good",
                duration(*older_than)
            ),
        }
    }

    fn done(&self) -> &'static str {
        match self {
            Self::Discard(_) => "discarded",
            Self::Restore => "restored",
            Self::Purge(_) => "purged",
        }
    }

    async fn run(
        &self,
        store: &mut Store,
        filter: &DeadLetterFilter,
    ) -> Result<u64, passerby_consumer::store::StoreError> {
        match self {
            Self::Discard(discard) => store.discard_dead_letters(filter, discard).await,
            Self::Restore => store.restore_dead_letters(filter).await,
            Self::Purge(older_than) => store.purge_dead_letters(filter, *older_than).await,
        }
    }
}
