//! `passerby dead-letters export`: letters for other programs, whole.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use clap::{Args, ValueEnum};
use passerby_consumer::{
    args::DatabaseArgs,
    ops::{self, LetterContents},
    store::{DeadLetterFilter, DeadLetterRecord},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{filter::FilterArgs, open, show::LetterHead};
use crate::{
    commands::{Failure, output, stop_on_signal},
    render::counted,
};

/// Letters read at a time.
const PAGE: i64 = 500;
/// Rows of a letter that are decoded.
const MAX_ROWS: usize = 10_000;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// What is written.
    #[arg(long, value_name = "FORMAT", default_value = "ndjson")]
    format: Format,
    /// Write to this file, which must not be there, instead of stdout.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Go on in the file.
    #[arg(long, requires = "output")]
    append: bool,
    /// Only those with a greater number: where an earlier export ended.
    #[arg(long, value_name = "N", default_value = "0")]
    after: i64,
    /// At most so many [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object a line: everything about a letter, decoded as far as it can be, and its raw fields in Base64.
    Ndjson,
    /// MessagePack, one value after the other: [number, [name, value, name, value, …]] with binary names and values.
    Msgpack,
}

/// A line of NDJSON.
#[derive(Debug, Serialize)]
struct Exported {
    #[serde(flatten)]
    head: LetterHead,
    /// Name and value of each field, in Base64.
    raw_fields: Vec<(String, String)>,
    #[serde(flatten)]
    contents: LetterContents,
}

pub(super) async fn export(args: ExportArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let mut filter = DeadLetterFilter {
        after: args.after,
        ..args.filter.filter(PAGE)
    };
    // What comes in meanwhile is for the next time.
    filter.up_to = Some(store.last_dead_letter().await.map_err(Failure::store)?);
    let mut out = open_output(&args)?;
    let stop = CancellationToken::new();
    stop_on_signal(&stop);
    let mut left = args.limit.unwrap_or(i64::MAX);
    let mut n_written = 0;
    while left > 0 && !stop.is_cancelled() {
        filter.limit = left.min(PAGE);
        let letters = store
            .query_dead_letters(&filter)
            .await
            .map_err(Failure::store)?;
        let Some(last) = letters.last() else { break };
        filter.after = last.id;
        left -= i64::try_from(letters.len()).unwrap_or(i64::MAX);
        n_written += letters.len() as u64;
        let written = letters
            .iter()
            .try_for_each(|letter| write(&mut out, args.format, letter))
            .and_then(|()| out.flush());
        match written {
            Ok(()) => {}
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::new(format_args!("write the letters: {error}"))),
        }
    }
    let more = if n_written > 0 {
        format!("; --after {} goes on behind them", filter.after)
    } else {
        String::new()
    };
    output::warning(&format!(
        "{} exported{more}",
        counted(n_written, "dead letter")
    ));
    if stop.is_cancelled() {
        return Err(Failure::new("interrupted: what is written is whole"));
    }
    Ok(())
}

fn open_output(args: &ExportArgs) -> Result<Box<dyn Write>, Failure> {
    let Some(path) = &args.output else {
        return Ok(Box::new(BufWriter::new(io::stdout())));
    };
    let mut options = OpenOptions::new();
    if args.append {
        options.append(true).create(true);
    } else {
        options.write(true).create_new(true);
    }
    let file = options.open(path).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AlreadyExists => "; name another file, or go on in it with --append",
            _ => "",
        };
        Failure::new(format_args!("open {}: {error}{advice}", path.display()))
    })?;
    Ok(Box::new(BufWriter::new(file)))
}

fn write(out: &mut dyn Write, format: Format, letter: &DeadLetterRecord) -> io::Result<()> {
    match format {
        Format::Ndjson => {
            let encoded = |bytes: &[u8]| BASE64.encode(bytes);
            let exported = Exported {
                head: letter.into(),
                raw_fields: (letter.fields.iter())
                    .map(|(name, value)| (encoded(name), encoded(value)))
                    .collect(),
                contents: ops::read_letter(letter, MAX_ROWS),
            };
            serde_json::to_writer(&mut *out, &exported)?;
            out.write_all(b"\n")
        }
        Format::Msgpack => {
            let fields: Vec<&serde_bytes::Bytes> = letter
                .fields
                .iter()
                .flat_map(|(name, value)| [name, value])
                .map(|bytes| serde_bytes::Bytes::new(bytes))
                .collect();
            rmp_serde::encode::write(out, &(letter.id, fields)).map_err(io::Error::other)
        }
    }
}
