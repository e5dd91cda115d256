use std::{collections::BTreeMap, io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Asks for a page, and returns the status and the body. In HTTP/1.0, so that it comes in one piece.
pub async fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    http_get_as(address, path, "*/*").await
}

/// As [`http_get`], of what media type the answer is to be.
pub async fn http_get_as(address: SocketAddr, path: &str, accept: &str) -> (u16, String) {
    let reply = reply_to(address, path, accept).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap();
    let is_chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    assert!(!is_chunked, "{head}");
    (status.parse().unwrap(), body.to_owned())
}

async fn reply_to(address: SocketAddr, path: &str, accept: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(reply)
}

/// What an exporter told, in Prometheus' text format.
#[derive(Debug, Default)]
pub struct Scrape {
    /// The metrics, by name.
    pub families: BTreeMap<String, Family>,
}

/// A metric, as it was exported.
#[derive(Debug, Default)]
pub struct Family {
    /// Its type.
    pub series: String,
    /// Its help text.
    pub help: String,
    /// Its series; of a histogram, those of its buckets, sum and count.
    pub samples: Vec<Sample>,
}

/// One line.
#[derive(Debug)]
pub struct Sample {
    /// What follows the metric's name, as `_bucket`.
    pub suffix: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Scrape {
    /// Asks a worker; `None` when it does not answer, as one that was killed.
    pub async fn of(address: SocketAddr) -> Option<Self> {
        let reply = reply_to(address, "/metrics", "*/*").await.ok()?;
        let (_, body) = reply.split_once("\r\n\r\n")?;
        // One that was killed on the way has sent half of it.
        body.ends_with('\n').then(|| Self::parse(body))
    }

    /// Reads the text format; panics where it is none.
    pub fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        let mut of_type = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                scrape.family(name).help = help.replace("\\\\", "\\");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, series) = rest.split_once(' ').unwrap();
                scrape.family(name).series = series.to_owned();
                of_type = name.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let suffix = name.strip_prefix(&of_type);
                let sample = Sample {
                    suffix: suffix
                        .unwrap_or_else(|| panic!("{line} has no type"))
                        .to_owned(),
                    labels: labels_of(labels.strip_suffix('}').unwrap()),
                    value: value.parse().unwrap_or_else(|_| panic!("{line}")),
                };
                scrape.family(&of_type).samples.push(sample);
            }
        }
        scrape
    }

    fn family(&mut self, name: &str) -> &mut Family {
        self.families.entry(name.to_owned()).or_default()
    }

    /// The sum of a metric's series that have these labels. Of a histogram, the number of its samples. NaN
    /// while a worker that is just starting does not export it yet.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let Some(family) = self.families.get(name) else {
            return f64::NAN;
        };
        let has = |sample: &Sample| {
            let mut wanted = labels.iter();
            wanted.all(|(name, value)| sample.labels.get(*name).is_some_and(|v| v == value))
                && (sample.suffix.is_empty() || sample.suffix == "_count")
        };
        let mut found = family
            .samples
            .iter()
            .filter(|sample| has(sample))
            .peekable();
        assert!(found.peek().is_some(), "{name} has no series {labels:?}");
        found.map(|sample| sample.value).sum()
    }

    /// As [`Scrape::value`], of a metric without labels, or of all its series.
    pub fn get(&self, name: &str) -> f64 {
        self.value(name, &[])
    }
}

fn labels_of(text: &str) -> BTreeMap<String, String> {
    // No value of ours has a comma or a quote.
    text.split(',')
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (name, value) = label.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        })
        .collect()
}
