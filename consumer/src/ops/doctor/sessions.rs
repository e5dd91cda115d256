//! What Postgres allows a session: how many there are, how long they may take, and whether a session is one.

use std::{collections::HashMap, time::Duration};

use tokio_postgres::types::Type;

use super::{
    check::{Outcome, Unknown, Verdict},
    patient::{Patient, Postgres},
};
use crate::store::Store;

/// What a role's sessions begin with, where it is not the one that asks.
const OF_ROLE: &str = "
SELECT split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
FROM pg_db_role_setting, unnest(setconfig) AS setting
WHERE setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = $1))
  AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY setrole, setdatabase";

/// A limit, and below what it cuts off work that is sound.
const TIMEOUTS: &[(&str, u64, &str)] = &[
    (
        "transaction_timeout",
        60,
        "ends a commit that a slow disk holds up, again and again",
    ),
    (
        "statement_timeout",
        60,
        "ends migrations, and the pruning of a large ledger",
    ),
    (
        "lock_timeout",
        10,
        "ends a migration that waits for another worker's",
    ),
    (
        "idle_session_timeout",
        60,
        "closes the connections of a worker in a quiet hour",
    ),
];

pub(super) async fn timeouts(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    let role = postgres.role(patient.config.role.as_deref()).await?;
    let of_role: HashMap<String, String> = match patient.config.role {
        None => HashMap::new(),
        Some(_) => {
            let rows = postgres.query(OF_ROLE, &[(&role, Type::TEXT)]).await?;
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        }
    };
    let mut short = Vec::new();
    for (name, least, harm) in TIMEOUTS {
        let Some(setting) = of_role
            .get(*name)
            .map(String::as_str)
            .or(postgres.setting(name))
        else {
            continue; // an older server
        };
        let limit = milliseconds(setting)
            .ok_or_else(|| Unknown::new(format!("{name} is `{setting}`, which is no time")))?;
        if !limit.is_zero() && limit < Duration::from_secs(*least) {
            short.push((*name, limit, *harm));
        }
    }
    let Some((name, _, harm)) = short.first() else {
        return Ok(Verdict::ok(format!(
            "no limit for sessions of {role} is too short"
        )));
    };
    let verdict = if *name == "transaction_timeout" {
        Verdict::problem
    } else {
        Verdict::warning
    };
    let all: Vec<String> = short
        .iter()
        .map(|(name, limit, _)| format!("{name} is {} s", limit.as_secs_f64()))
        .collect();
    Ok(verdict(
        format!("for {role}, {}", all.join(", ")),
        format!("ALTER ROLE {role} SET {name} = 0: a worker bounds its transactions itself"),
    )
    .because(format!("it {harm}")))
}

/// In milliseconds where it has no unit, as `pg_settings` has it.
fn milliseconds(setting: &str) -> Option<Duration> {
    let digits = setting
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(setting.len());
    let number: u64 = setting[..digits].parse().ok()?;
    let unit = match setting[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.saturating_mul(unit)))
}

const CONNECTIONS: &str = "
SELECT (SELECT sum(numbackends) FROM pg_stat_database)::bigint,
       datconnlimit,
       (SELECT numbackends FROM pg_stat_database WHERE datid = pg_database.oid)::bigint,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = $1),
       (SELECT count(*) FROM pg_stat_activity WHERE usename = $1)
FROM pg_database
WHERE datname = current_database()";

pub(super) async fn connections(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    let role = postgres.role(patient.config.role.as_deref()).await?;
    let number = |name| {
        let setting = postgres.setting(name).unwrap_or("0");
        setting.parse::<i64>().unwrap_or(0)
    };
    let most = number("max_connections")
        - number("superuser_reserved_connections")
        - number("reserved_connections");
    let row = postgres.one(CONNECTIONS, &[(&role, Type::TEXT)]).await?;
    let of_database = (i64::from(row.get::<_, i32>(1)), row.get::<_, i64>(2));
    let of_role = (
        i64::from(row.get::<_, Option<i32>>(3).unwrap_or(-1)),
        row.get::<_, i64>(4),
    );
    let limits = [
        ("max_connections".to_owned(), most, row.get::<_, i64>(0)),
        (
            format!("CONNECTION LIMIT of database {}", postgres.url.database()),
            of_database.0,
            of_database.1,
        ),
        (
            format!("CONNECTION LIMIT of role {role}"),
            of_role.0,
            of_role.1,
        ),
    ];
    let limited = limits.iter().filter(|(_, most, _)| *most >= 0);
    let Some((name, most, used)) = limited.min_by_key(|(_, most, used)| most - used) else {
        return Err(Unknown::new("this server has no limit"));
    };
    let free = most - used;
    // A worker has its committers, one for upkeep, and one more while a careful commit lasts.
    let needed = i64::try_from(patient.config.committers)
        .unwrap_or(i64::MAX)
        .saturating_add(2);
    let what = format!("{used} of {most} connections are in use ({name})");
    let fix = "raise the limit, or end what is not needed: SELECT * FROM pg_stat_activity";
    Ok(if free < needed {
        Verdict::problem(format!("{what}; a worker needs {needed}"), fix)
    } else if free < most / 10 {
        Verdict::warning(what, fix)
    } else {
        Verdict::ok(what)
    })
}

/// Clients beside ours that hold a backend each: a pooler then has to give ours another one.
const HOLDERS: usize = 3;

pub(super) async fn pooler(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    let before = backend(postgres).await?;
    let limit = patient.config.timeout / 4;
    let mut holders = Vec::new();
    let mut after = before;
    for _ in 0..HOLDERS {
        let holder = Store::open_client(&postgres.url, limit)
            .await
            .map_err(|error| Unknown::new(passerby_shared::ErrorChain(&error).to_string()))?;
        holder.batch_execute("BEGIN READ ONLY; SELECT 1").await?;
        holders.push(holder);
        match tokio::time::timeout(limit, backend(postgres)).await {
            Ok(pid) => after = pid?,
            Err(_) => return Ok(pooled("a session waits for the transactions of others")),
        }
        if after != before {
            break;
        }
    }
    for holder in holders {
        holder.batch_execute("ROLLBACK").await?;
    }
    Ok(if after == before {
        Verdict::ok("a session keeps its backend: no pooler in transaction mode is between")
    } else {
        pooled("a session is given another backend for each transaction")
    })
}

fn pooled(what: &str) -> Verdict {
    Verdict::problem(
        format!("{what}: a pooler in transaction mode, as PgBouncer's, is between"),
        "name Postgres itself in PASSERBY_DATABASE_URL, or set pool_mode = session for this database",
    )
}

async fn backend(postgres: &Postgres) -> Result<i32, Unknown> {
    Ok(postgres.one("SELECT pg_backend_pid()", &[]).await?.get(0))
}

/// The oldest transaction of others, and the oldest that was prepared and never ended.
const LONG: &str = "
SELECT extract(epoch FROM clock_timestamp() - xact_start)::bigint,
       coalesce(usename::text, '?') || ' (' || coalesce(nullif(application_name, ''), 'no name') || ', pid '
           || pid || ', ' || coalesce(state, 'state unknown') || ')',
       'SELECT pg_terminate_backend(' || pid || ')'
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
UNION ALL
SELECT extract(epoch FROM clock_timestamp() - prepared)::bigint,
       'prepared transaction ' || quote_literal(gid),
       'ROLLBACK PREPARED ' || quote_literal(gid)
FROM pg_prepared_xacts
WHERE database = current_database()
ORDER BY 1 DESC
LIMIT 1";

pub(super) async fn long_transactions(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    let rows = postgres.query(LONG, &[]).await?;
    let limit = i64::try_from(patient.config.long_transaction.as_secs()).unwrap_or(i64::MAX);
    if let Some(row) = rows.first().filter(|row| row.get::<_, i64>(0) >= limit) {
        return Ok(Verdict::warning(
            format!(
                "open for {} s: {}",
                row.get::<_, i64>(0),
                row.get::<_, &str>(1)
            ),
            format!("see what it does, and end it: {}", row.get::<_, &str>(2)),
        ));
    }
    let may_see = postgres
        .one("SELECT pg_has_role('pg_read_all_stats', 'USAGE')", &[])
        .await?;
    if !may_see.get::<_, bool>(0) {
        return Err(
            Unknown::new("this role does not see the transactions of others")
                .fix("GRANT pg_monitor to the role to have this checked"),
        );
    }
    Ok(Verdict::ok(format!(
        "no transaction is open for {limit} s or longer"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_unit() {
        let check = |setting, expected: Option<u64>| {
            assert_eq!(
                milliseconds(setting),
                expected.map(Duration::from_millis),
                "{setting}"
            );
        };
        check("0", Some(0));
        check("1500", Some(1_500));
        check("30s", Some(30_000));
        check("5min", Some(300_000));
        check("soon", None);
    }
}
