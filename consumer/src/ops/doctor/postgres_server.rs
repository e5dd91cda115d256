//! Postgres itself: whether it answers and takes writes, and what it is.

use tokio_postgres::config::SslMode;

use super::{
    check::{Outcome, Unknown, Verdict},
    known_bugs::{Server, judge},
    patient::{Patient, Way},
};

pub(super) async fn reachable(patient: &Patient<'_>) -> Outcome {
    let postgres = match patient.postgres_or_problem() {
        Ok(postgres) => postgres,
        Err(problem) => return Ok(problem),
    };
    let begun = tokio::time::Instant::now();
    let row = postgres
        .one("SELECT pg_is_in_recovery(), current_user::text", &[])
        .await?;
    let elapsed = begun.elapsed();
    if row.get(0) {
        return Ok(Verdict::problem(
            format!("{} is a standby", postgres.url),
            "name the primary in PASSERBY_DATABASE_URL, or several hosts with \
             ?target_session_attrs=read-write",
        )
        .because("a standby takes no writes: nothing is stored, and Redis fills up"));
    }
    if postgres.setting("default_transaction_read_only") == Some("on") {
        return Ok(Verdict::problem(
            format!("{}: transactions of this role are read-only", postgres.url),
            format!(
                "ALTER ROLE {} SET default_transaction_read_only = off, or the same for the database",
                row.get::<_, &str>(1)
            ),
        )
        .because("nothing is stored, and Redis fills up"));
    }
    Ok(Verdict::ok(format!(
        "{} answers within {:.1} ms",
        postgres.url,
        elapsed.as_secs_f64() * 1e3
    )))
}

pub(super) async fn tls(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    let way = Way::to_postgres(&postgres.url).await?;
    let rows = postgres
        .query(
            "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            &[],
        )
        .await?;
    let protocol: Option<String> = rows
        .first()
        .filter(|row| row.get(0))
        .and_then(|row| row.get(1));
    Ok(judge_tls(way, protocol.as_deref(), postgres.url.ssl_mode()))
}

fn judge_tls(way: Way, protocol: Option<&str>, mode: SslMode) -> Verdict {
    const FIX: &str = "add ?sslmode=require to PASSERBY_DATABASE_URL, and give the server a certificate \
                       that this host's roots know";
    match (protocol, way) {
        (Some(protocol), _) if mode == SslMode::Require => Verdict::ok(format!(
            "{protocol}, and the server's certificate was verified"
        )),
        (Some(protocol), Way::Public) => Verdict::warning(
            format!("{protocol} over public addresses, and the certificate was not verified"),
            FIX,
        )
        .because("whoever stands on the way can pretend to be the server"),
        (Some(protocol), way) => Verdict::ok(format!("{protocol}, {}", way.as_str())),
        (None, Way::Public) => Verdict::warning("not encrypted, over public addresses", FIX),
        (None, way) => Verdict::ok(format!("not encrypted, {}", way.as_str())),
    }
}

pub(super) async fn version(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    let text = postgres.needed_setting("server_version")?;
    let version = text
        .parse()
        .map_err(|()| Unknown::new(format!("`{text}` is no version")))?;
    let today = (patient.config.clock)().date_naive();
    Ok(judge(Server::Postgres, version, today))
}

pub(super) async fn encoding(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    let encoding = postgres.needed_setting("server_encoding")?;
    if encoding == "UTF8" {
        return Ok(Verdict::ok("the database is in UTF8"));
    }
    Ok(Verdict::problem(
        format!("the database is in {encoding}"),
        format!(
            "make a new one with `createdb --encoding UTF8 --template template0 {}_utf8` and move the \
             rows with pg_dump",
            postgres.url.database()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Status;

    #[test]
    fn what_is_not_verified_matters_in_public_alone() {
        let check = |way, protocol, mode, expected| {
            assert_eq!(judge_tls(way, protocol, mode).status, expected);
        };
        check(Way::Local, None, SslMode::Prefer, Status::Ok);
        check(Way::Private, None, SslMode::Disable, Status::Ok);
        check(Way::Public, None, SslMode::Prefer, Status::Warning);
        check(
            Way::Public,
            Some("TLSv1.3"),
            SslMode::Prefer,
            Status::Warning,
        );
        check(Way::Public, Some("TLSv1.3"), SslMode::Require, Status::Ok);
    }
}
