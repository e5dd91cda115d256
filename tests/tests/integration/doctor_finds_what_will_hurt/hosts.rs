//! Clocks and disks.

use super::*;

fn an_hour_ahead() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now() + chrono::TimeDelta::hours(1)
}

#[tokio::test]
async fn clocks_that_differ_are_a_problem() {
    let env = Env::start().await;
    check(&config(&env), "clocks.agree", Well, &[]).await;
    let skewed = DoctorConfig {
        clock: an_hour_ahead,
        ..config(&env)
    };
    check(
        &skewed,
        "clocks.agree",
        Problem,
        &["behind that of this host", "set-ntp"],
    )
    .await;
}

#[tokio::test]
async fn a_disk_without_room_is_a_problem() {
    let env = Env::start().await;
    let spool = tempfile::tempdir().unwrap();
    let greedy = DoctorConfig {
        spools: vec![spool.path().to_owned()],
        least_free: u64::MAX,
        ..config(&env)
    };
    for id in ["disk.redis", "disk.postgres", "disk.spools"] {
        check(&greedy, id, Problem, &["GiB are free"]).await;
    }
    let missing = DoctorConfig {
        spools: vec!["/nowhere/spool".into()],
        ..config(&env)
    };
    check(&missing, "disk.spools", Unknown, &["/nowhere/spool"]).await;
    // Without a spool there is nothing to look at.
    let only_spools = Selection {
        only: vec!["disk.spools".to_owned()],
        skip: Vec::new(),
    };
    let config = DoctorConfig {
        selection: only_spools,
        ..config(&env)
    };
    assert!(ops::doctor(&config).await.findings.is_empty());
}
