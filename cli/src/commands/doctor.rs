//! `passerby doctor`: what will hurt later, on the servers as they are now.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, builder::PossibleValuesParser};
use passerby_consumer::{
    args::{DatabaseArgs, RedisArgs, parse_duration},
    ops::{self, CheckInfo, DoctorConfig, DoctorReport, Finding, Selection, Status},
};

use super::{Failure, UNHEALTHY, output};
use crate::{
    render::{Colour, Paint, Terminal, counted},
    visible::visible,
};

/// Check everything that will hurt later, now, on your servers.
///
/// Nothing is changed. Each check says what it found; where that is not well, also why it matters and how
/// to mend it. A check that could not look says "unknown", and never "ok". The worst comes last.
///
/// Exit code 3 when anything is wrong: a problem or a warning; with --strict also when a check could not
/// look, with --lenient for problems alone.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  passerby doctor\n  passerby doctor --only redis --skip redis.tls --json"
)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Only these checks: IDs, as redis.eviction, or topics, as redis.
    #[arg(long, value_name = "ID", value_delimiter = ',', hide_possible_values = true,
          value_parser = names())]
    only: Vec<String>,
    /// Not these checks.
    #[arg(long, value_name = "ID", value_delimiter = ',', hide_possible_values = true,
          value_parser = names())]
    skip: Vec<String>,
    /// List the checks, and make none.
    #[arg(long, conflicts_with = "json")]
    list: bool,
    /// Exit with 3 also when a check could not look.
    #[arg(long, conflicts_with = "lenient")]
    strict: bool,
    /// Exit with 3 for problems alone, and not for warnings.
    #[arg(long)]
    lenient: bool,
    /// The workers' role in Postgres [default: the one in --database-url].
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// A producer's spool on this host, to look at its disk.
    #[arg(long, value_name = "DIR")]
    spool: Vec<PathBuf>,
    /// Longest time for each check.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    /// As the workers have it.
    #[arg(long, env = "PASSERBY_MIN_IDLE", value_name = "TIME", default_value = "30s",
          value_parser = parse_duration)]
    min_idle: Duration,
    /// As the workers have it.
    #[arg(long, env = "PASSERBY_TRIM_GRACE", value_name = "TIME", default_value = "15m",
          value_parser = parse_duration)]
    trim_grace: Duration,
    /// As the workers have it.
    #[arg(long, env = "PASSERBY_LEDGER_RETENTION", value_name = "TIME", default_value = "7d",
          value_parser = parse_duration)]
    ledger_retention: Duration,
    /// As the workers have it.
    #[arg(
        long,
        env = "PASSERBY_COMMITTERS",
        value_name = "N",
        default_value = "2"
    )]
    committers: NonZeroUsize,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// IDs and topics.
fn names() -> PossibleValuesParser {
    let mut names: Vec<&str> = Vec::new();
    for CheckInfo { id, .. } in ops::doctor_checks() {
        let topic = id.split('.').next().unwrap_or(id);
        if !names.contains(&topic) {
            names.push(topic);
        }
        names.push(id);
    }
    PossibleValuesParser::new(names)
}

/// Runs the command.
pub(crate) async fn run(args: DoctorArgs) -> Result<ExitCode, Failure> {
    if args.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    let selection = Selection {
        only: args.only,
        skip: args.skip,
    };
    let redis_url = selection
        .needs_redis()
        .then(|| args.redis.redis_url())
        .transpose()
        .map_err(Failure::usage)?;
    let database_url = selection
        .needs_postgres()
        .then(|| args.database.database_url())
        .transpose()
        .map_err(Failure::usage)?;
    let (long_transaction, least_free) = (Duration::from_secs(600), 256 << 20);
    let config = DoctorConfig {
        long_transaction,
        least_free,
        redis_url,
        database_url,
        key_prefix: args.redis.key_prefix,
        shards: args.redis.shards,
        group: args.redis.group,
        min_idle: args.min_idle,
        trim_grace: args.trim_grace,
        ledger_retention: args.ledger_retention,
        committers: args.committers.get(),
        role: args.role,
        spools: args.spool,
        selection,
        timeout: args.timeout,
        clock: chrono::Utc::now,
    };
    let report = ops::doctor(&config).await;
    if args.json {
        output::json(&report);
    } else {
        for line in lines(&report, Terminal::stdout(), Paint::stdout()) {
            output::line(&line);
        }
    }
    let is_tolerated = match (args.strict, args.lenient) {
        (true, _) => Status::Ok,
        (_, true) => Status::Warning,
        _ => Status::Unknown,
    };
    Ok(if report.worst() <= is_tolerated {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(UNHEALTHY)
    })
}

fn list() {
    let checks: Vec<CheckInfo> = ops::doctor_checks().collect();
    let width = checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    for CheckInfo { id, why } in checks {
        output::line(&format!("{id:<width$}  {why}"));
    }
}

/// The findings, the worst last, and how many there are of each kind.
fn lines(report: &DoctorReport, terminal: Terminal, paint: Paint) -> Vec<String> {
    let width = report
        .findings
        .iter()
        .map(|f| f.id.len())
        .max()
        .unwrap_or(0);
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|finding| finding.status);
    let mut lines = Vec::new();
    for (i, finding) in findings.iter().enumerate() {
        let what = visible(&finding.what);
        let is_repeated = findings[..i]
            .iter()
            .any(|f| f.status == finding.status && f.what == finding.what);
        lines.push(format!(
            "{}  {:<width$}  {what}",
            label(finding.status, terminal, paint),
            finding.id
        ));
        if finding.status == Status::Ok || (is_repeated && finding.fix.is_none()) {
            continue;
        }
        lines.push(format!("{:INDENT$}why  {}", "", visible(&finding.why)));
        if let Some(fix) = &finding.fix {
            lines.push(format!("{:INDENT$}fix  {}", "", visible(fix)));
        }
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines.push(summary(report));
    lines
}

/// Columns before what stands below a finding.
const INDENT: usize = 13;

fn label(status: Status, terminal: Terminal, paint: Paint) -> String {
    let (sign, ascii, word, colour) = match status {
        Status::Ok => ('✓', '+', "ok", Colour::Green),
        Status::Unknown => ('?', '?', "unknown", Colour::Dim),
        Status::Warning => ('!', '!', "warning", Colour::Yellow),
        Status::Problem => ('✗', 'x', "problem", Colour::Red),
    };
    let sign = if terminal.is_unicode { sign } else { ascii };
    paint.text(colour, &format!("{sign} {word:<9}"))
}

fn summary(report: &DoctorReport) -> String {
    let n = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let mut parts = vec![format!("{} ok", report.ok)];
    if report.unknown > 0 {
        parts.push(format!("{} unknown", report.unknown));
    }
    if report.warnings > 0 {
        parts.push(counted(n(report.warnings), "warning"));
    }
    if report.problems > 0 {
        parts.push(counted(n(report.problems), "problem"));
    }
    parts.join(", ")
}
