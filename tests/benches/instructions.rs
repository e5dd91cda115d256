//! Instructions a row takes to encode and to decode, held against the committed figures.
//!
//! ```text
//! cargo bench-instructions [-- --update]
//! ```
//!
//! Counts repeat where times do not, so that a change which makes a row dearer is seen on any machine,
//! however busy. Callgrind counts what a program does for N rounds and for 2 N; the difference is that
//! of N rounds, whatever starting the program costs. More than 10 % above `instructions.txt` is a
//! failure; `--update` writes the file anew. Needs valgrind.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people who measure"
)]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    hint::black_box,
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
};

use clap::{Parser, ValueEnum};
use passerby_consumer::{batch::Origin, fuzzing};
use passerby_shared::{
    Detection, EntryId, IdempotencyKey, KeyPrefix,
    wire::{self, FIELD_KEY, FIELD_KIND, FIELD_PAYLOAD, FIELD_VERSION},
};
use passerby_tests::benching::Rows;

/// Few, as each instruction is emulated.
const ROUNDS: u64 = 20;
const ROWS: Rows = Rows {
    entries: 50,
    per_entry: 100,
};
/// Above the committed figure, in per cent.
const MAX_GROWTH: u64 = 10;

/// Counts instructions a row.
#[derive(Debug, Parser)]
struct Args {
    /// Writes the figures to the file that they are held against.
    #[arg(long)]
    update: bool,
    /// What to do, for whoever counts.
    #[arg(long, hide = true, requires = "rounds")]
    only: Option<Work>,
    /// How often.
    #[arg(long, hide = true)]
    rounds: Option<u64>,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Work {
    /// Detections into a payload, as a producer's background thread does.
    Encode,
    /// Delivered entries into rows ready for COPY, as a worker does.
    Decode,
    /// The same of entries in the plain form, as others write them.
    DecodeMaps,
}

impl Work {
    fn name(self) -> String {
        self.to_possible_value().unwrap().get_name().to_owned()
    }

    fn run(self, rounds: u64) {
        match self {
            Self::Encode => {
                let entries: Vec<_> = (0..ROWS.entries).map(|n| ROWS.of_entry(n)).collect();
                let mut payload = Vec::new();
                for _ in 0..rounds {
                    for entry in &entries {
                        payload.clear();
                        wire::encode_detections(black_box(entry), &mut payload);
                        black_box(&payload);
                    }
                }
            }
            Self::Decode => decode(rounds, |rows, payload| {
                wire::encode_detections(rows, payload);
            }),
            Self::DecodeMaps => decode(rounds, wire::encode_plain_detections),
        }
    }

    /// Instructions a row.
    fn count(self) -> u64 {
        let n_rows = ROUNDS * u64::try_from(ROWS.len()).unwrap();
        (callgrind(self, 2 * ROUNDS) - callgrind(self, ROUNDS)) / n_rows
    }
}

fn decode(rounds: u64, encode: impl Fn(&[Detection], &mut Vec<u8>)) {
    let stream = Arc::new(KeyPrefix::default().stream(0));
    let delivered: Vec<_> = (0..ROWS.entries)
        .map(|n| {
            let mut payload = Vec::new();
            encode(&ROWS.of_entry(n), &mut payload);
            let key = IdempotencyKey::generate();
            let fields = vec![
                (FIELD_VERSION.into(), "1".into()),
                (FIELD_KIND.into(), "d".into()),
                (FIELD_KEY.into(), key.as_bytes().to_vec().into()),
                (FIELD_PAYLOAD.into(), payload.into()),
            ];
            let id = EntryId {
                ms: 1,
                seq: u64::try_from(n).unwrap(),
            };
            let origin = Origin {
                stream: Arc::clone(&stream),
                id,
            };
            (origin, Some(fields), false)
        })
        .collect();
    let decoding = fuzzing::Decoding::begin();
    for _ in 0..rounds {
        decoding.decode(black_box(delivered.clone()));
    }
}

/// Instructions of this program when it does some work so often.
fn callgrind(work: Work, rounds: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--only", &work.name(), "--rounds", &rounds.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("valgrind cannot be run ({error}): install it first"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let line = said.lines().find(|line| line.contains("Collected :"));
    let line = line.unwrap_or_else(|| panic!("no count in: {said}"));
    let (_, count) = line.rsplit_once(' ').unwrap();
    count.parse().unwrap()
}

fn main() -> ExitCode {
    let args = Args::parse();
    if cfg!(debug_assertions) {
        // `cargo test` runs benchmarks, too, and measures nothing by that.
        return ExitCode::SUCCESS;
    }
    if let (Some(work), Some(rounds)) = (args.only, args.rounds) {
        work.run(rounds);
        return ExitCode::SUCCESS;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
    let arch = std::env::consts::ARCH;
    let mut committed: BTreeMap<String, u64> = fs::read_to_string(&path)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (name, count) = line.rsplit_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        })
        .collect();
    let mut is_dearer = false;
    for work in Work::value_variants() {
        let name = format!("{arch} {}", work.name());
        let count = work.count();
        let verdict = match committed.get(&name) {
            Some(before) if count * 100 > before * (100 + MAX_GROWTH) => {
                is_dearer = true;
                format!("{before} committed: more than {MAX_GROWTH} % dearer")
            }
            Some(before) => format!("{before} committed"),
            None => "nothing committed for this architecture".to_owned(),
        };
        println!("{name}: {count} instructions a row ({verdict})");
        committed.insert(name, count);
    }
    if args.update {
        let lines = committed
            .iter()
            .fold(String::new(), |mut lines, (name, count)| {
                writeln!(lines, "{name} {count}").unwrap();
                lines
            });
        fs::write(&path, lines).unwrap();
        return ExitCode::SUCCESS;
    }
    if is_dearer {
        println!("find the cause; if it must be so, commit the figures of --update and say why");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
