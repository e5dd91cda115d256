//! Entries that no producer of ours wrote: plain maps, with and without a key, and broken ones.

use std::{sync::Arc, time::Duration};

use passerby_shared::{
    Detection, IdempotencyKey,
    redis_connection::{RedisLink, RedisTimeouts},
    wire,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{
    books::Account,
    random,
    rows::Source,
    world::{World, stream},
};

const ENTRY_EVERY: Duration = Duration::from_millis(40);
const ROWS_PER_ENTRY: i64 = 5;
pub(crate) const ROWS_PER_SECOND: i64 = 125;
/// How often a stranger with a key tries again.
const N_ATTEMPTS: usize = 20;

/// What a stranger writes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Entry {
    /// Without a key: it must not be sent twice.
    Keyless,
    /// With a key as text.
    Keyed,
    /// One of its rows is invalid.
    OneBadRow,
    /// No MessagePack.
    Garbage,
    /// Of a version to come.
    TooNew,
}

impl Entry {
    /// The kind of entry `n`: mostly good ones.
    fn of(source: &Source, n: i64) -> Self {
        match random::mix(random::of_text(&source.session_id) ^ n.cast_unsigned()) % 20 {
            0 => Self::Garbage,
            1 => Self::TooNew,
            2 | 3 => Self::OneBadRow,
            4..10 => Self::Keyless,
            _ => Self::Keyed,
        }
    }
}

/// Writes entries for so long, straight to Redis.
pub(crate) async fn write(world: Arc<World>, source: Source, length: Duration) -> Account {
    let limit = Duration::from_millis(500);
    let timeouts = RedisTimeouts {
        connect: limit,
        response: limit,
    };
    let mut link = RedisLink::new(world.redis_url(), timeouts);
    let mut account = Account::new(source);
    let until = Instant::now() + length;
    let mut tick = interval(ENTRY_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut n = 0;
    while Instant::now() < until {
        tick.tick().await;
        write_one(&mut link, &mut account, n).await;
        n += 1;
    }
    account
}

async fn write_one(link: &mut RedisLink, account: &mut Account, n: i64) {
    let entry = Entry::of(&account.source, n);
    let first = n * ROWS_PER_ENTRY;
    let last = match entry {
        Entry::Garbage | Entry::TooNew => first,
        _ => first + ROWS_PER_ENTRY - 1,
    };
    let mut rows: Vec<Detection> = (first..=last)
        .map(|n| account.source.detection(n))
        .collect();
    if entry == Entry::OneBadRow {
        rows[2].confidence = Some(2.0);
    }
    let mut payload = Vec::new();
    wire::encode_plain_detections(&rows, &mut payload);
    if entry == Entry::Garbage {
        // 0xc1 is what MessagePack never uses. The rest is for us: see `verdict`.
        payload = [
            b"\xc1",
            format!("{}#{first}", account.source.session_id).as_bytes(),
        ]
        .concat();
    }
    let version = if entry == Entry::TooNew { "9" } else { "1" };
    let mut command = redis::cmd("XADD");
    command
        .arg(stream())
        .arg("*")
        .arg("v")
        .arg(version)
        .arg("p")
        .arg(payload);
    let is_keyed = entry != Entry::Keyless;
    if is_keyed {
        let key = IdempotencyKey::derived_from(
            "chaos",
            &[account.source.session_id.as_bytes(), &n.to_be_bytes()],
        );
        command.arg("i").arg(key.as_uuid().to_string());
    }
    let mut is_written = false;
    for _ in 0..if is_keyed { N_ATTEMPTS } else { 1 } {
        is_written = try_write(link, &command).await;
        if is_written {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let rows = if is_written {
        &mut account.accepted
    } else {
        &mut account.uncertain
    };
    rows.extend(first..=last);
    match entry {
        Entry::Garbage | Entry::TooNew => {
            account.dead.insert(first);
        }
        Entry::OneBadRow => {
            account.dead.insert(first + 2);
        }
        Entry::Keyless | Entry::Keyed => {}
    }
}

async fn try_write(link: &mut RedisLink, command: &redis::Cmd) -> bool {
    let Ok(connection) = link.get().await else {
        return false;
    };
    match command.query_async::<String>(connection).await {
        Ok(_) => true,
        Err(error) => {
            link.judge(&error);
            false
        }
    }
}
