//! Starts both servers, says how long that took, and stops them.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to whoever runs it"
)]

use std::{process::ExitCode, time::Instant};

use passerby_servers::{
    Binaries, PostgresOptions, PostgresServer, Progress, RedisOptions, RedisServer, ServerError,
};

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), ServerError> {
    let binaries = Binaries {
        on_progress: Progress::new(|message| println!("{message}")),
        ..Binaries::default()
    };
    let began = Instant::now();
    let redis = RedisServer::start(RedisOptions {
        binaries: binaries.clone(),
        ..Default::default()
    })?;
    let redis_took = began.elapsed();
    let postgres = PostgresServer::start(PostgresOptions {
        binaries,
        ..Default::default()
    })?;
    let both_took = began.elapsed();
    println!(
        "{}\n  {} after {redis_took:.0?}",
        redis.version_line(),
        redis.url()
    );
    println!(
        "{}\n  {} after {both_took:.0?}",
        postgres.version_line(),
        postgres.url("postgres")
    );

    let began = Instant::now();
    drop((redis, postgres));
    println!("both gone after {:.0?}", began.elapsed());
    Ok(())
}
