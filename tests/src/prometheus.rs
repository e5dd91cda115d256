use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    process::Child,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use crate::{Tool, eventually, http_get, project, project_file};

/// A Prometheus of the system with the project's configuration, in which only the targets and the intervals
/// are others. It is killed when dropped.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it; `targets` are those of each job.
    pub async fn start(prometheus: &Tool, targets: &BTreeMap<&str, Vec<SocketAddr>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(targets).to_string();
        // JSON is YAML, too.
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let log = folder.path().join("log");
        let child = prometheus
            .command()
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg("--web.listen-address=127.0.0.1:0")
            .current_dir(folder.path())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut address = None;
        eventually("Prometheus is ready", async || {
            let log = fs::read_to_string(&log).unwrap();
            address = log
                .lines()
                .find(|line| line.contains("\"Listening on\""))
                .and_then(|line| line.rsplit_once("address=")?.1.parse().ok());
            match address {
                Some(address) => http_get(address, "/-/ready").await.0 == 200,
                None => false,
            }
        })
        .await;
        Self {
            child,
            address: address.expect("found above"),
            _folder: folder,
        }
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = http_get(self.address, path).await;
        let reply: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        assert_eq!(reply["status"], "success", "{path}: {status} {body}");
        assert!(reply["warnings"].is_null(), "{path}: {body}");
        reply["data"].clone()
    }

    /// What a query returns now.
    pub async fn query(&self, query: &str) -> Vec<Value> {
        let data = self
            .get(&format!("/api/v1/query?query={}", escaped(query)))
            .await;
        data["result"].as_array().unwrap().clone()
    }

    /// The value of a query that returns one.
    pub async fn value(&self, query: &str) -> Option<f64> {
        match &self.query(query).await[..] {
            [one] => one["value"][1].as_str().unwrap().parse().ok(),
            _ => None,
        }
    }

    /// The names of all metrics that it knows.
    pub async fn names(&self) -> Vec<String> {
        let names = self.get("/api/v1/label/__name__/values").await;
        serde_json::from_value(names).unwrap()
    }

    /// The rules, each with its health.
    pub async fn rules(&self) -> Vec<Value> {
        let data = self.get("/api/v1/rules").await;
        data["groups"][0]["rules"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn config(targets: &BTreeMap<&str, Vec<SocketAddr>>) -> Value {
    let mut config: Value =
        serde_norway::from_str(&project_file("deploy/prometheus/prometheus.yml")).unwrap();
    for interval in ["scrape_interval", "scrape_timeout", "evaluation_interval"] {
        config["global"][interval] = json!("1s");
    }
    let rules = config["rule_files"].as_array_mut().unwrap();
    for file in rules {
        let path = project()
            .join("deploy/prometheus")
            .join(file.as_str().unwrap());
        *file = json!(path);
    }
    for job in config["scrape_configs"].as_array_mut().unwrap() {
        let job = job.as_object_mut().unwrap();
        job.retain(|key, _| !key.ends_with("_sd_configs"));
        let targets = &targets[job["job_name"].as_str().unwrap()];
        job.insert("static_configs".to_owned(), json!([{ "targets": targets }]));
    }
    config
}

fn escaped(query: &str) -> String {
    query.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Serves a text to whoever asks, as a pipeline does with its metrics. It lives as long as its value.
#[derive(Debug)]
pub struct Page {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Page {
    /// Serves what `render` returns.
    pub async fn serve(render: impl Fn() -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let body = render();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4";
                let length = body.len();
                let reply = format!(
                    "{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                if stream.read(&mut request).await.is_ok() {
                    // Whoever has gone away does not miss it.
                    drop(stream.write_all(reply.as_bytes()).await);
                }
            }
        });
        Self {
            address,
            _serving: serving,
        }
    }

    /// Where.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
