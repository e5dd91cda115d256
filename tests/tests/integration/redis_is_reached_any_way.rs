//! A worker reads from wherever a Redis URL says: with a user and a password, from another database, through a Unix
//! socket, and over TLS.

use std::{fs, net::SocketAddr, sync::Arc};

use passerby_shared::{
    IdempotencyKey,
    redis_connection::{ExclusiveConnection, RedisLink, RedisTimeouts},
    wire,
};
use passerby_tests::{Env, OwnRedis, WorkerBinary, fixtures};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

/// Publishes rows to one URL, and has a worker drain them from another.
async fn check(env: &Env, publish_to: &str, read_from: &str, variables: &[(&str, &str)]) {
    let mut payload = Vec::new();
    wire::encode_detections(&fixtures::detections(0..300), &mut payload);
    let mut link = RedisLink::new(publish_to.parse().unwrap(), RedisTimeouts::default());
    let mut add = redis::cmd("XADD");
    let _: String = add
        .arg(env.stream())
        .arg("*")
        .arg(&[("v", "1"), ("k", "d")])
        .arg("i")
        .arg(IdempotencyKey::generate().as_bytes())
        .arg("p")
        .arg(payload)
        .query_async(link.get().await.unwrap())
        .await
        .unwrap();
    let args = ["--redis-url", read_from, "--drain"];
    let worker = WorkerBinary::start_on_in(env, variables, &args).await;
    let finished = worker.finished().await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(env.n_rows().await, 300, "{}", finished.stderr);
}

#[tokio::test]
async fn with_a_user_and_from_another_database() {
    let env = Env::start().await;
    let redis = OwnRedis::start(&[]).await;
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("gate").arg("on").arg("~*");
    let _: () = redis.redis(user.arg("+@all").arg(">s3cr3t")).await;
    let url = redis.url().expose().replace("127", "gate:s3cr3t@127");
    let url = url.strip_suffix('0').unwrap().to_owned() + "3";
    check(&env, &url, &url, &[]).await;
}

#[tokio::test]
async fn with_a_password_alone() {
    let env = Env::start().await;
    let redis = OwnRedis::start(&[("requirepass", "s3cr3t")]).await;
    let url = redis.url().expose().replace("127", ":s3cr3t@127");
    check(&env, &url, &url, &[]).await;
}

#[tokio::test]
async fn through_a_unix_socket() {
    let env = Env::start().await;
    let redis = OwnRedis::start(&[]).await;
    let socket = redis.dir().join("redis.sock");
    let through = format!("redis+unix://{}", socket.display());
    check(&env, redis.url().expose(), &through, &[]).await;
}

/// A certificate that was made for localhost, and its file.
struct Certificate {
    made: CertifiedKey<rcgen::KeyPair>,
    dir: tempfile::TempDir,
}

impl Certificate {
    fn make() -> Self {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), made.cert.pem()).unwrap();
        Self { made, dir }
    }

    fn file(&self) -> String {
        self.dir.path().join("ca.pem").display().to_string()
    }

    /// Listens where TLS ends, before a server without.
    async fn listen(&self, port: u16) -> SocketAddr {
        let key = PrivateKeyDer::try_from(self.made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    // Who does not trust the certificate does not come further.
                    if let Ok(mut client) = acceptor.accept(client).await {
                        drop(copy_bidirectional(&mut client, &mut server).await);
                    }
                });
            }
        });
        address
    }
}

#[tokio::test]
async fn over_tls_if_the_certificate_is_trusted() {
    let env = Env::start().await;
    let redis = OwnRedis::start(&[]).await;
    let plain = redis.url();
    let redis_port = plain.expose().rsplit([':', '/']).nth(1).unwrap();
    let certificate = Certificate::make();
    let address = certificate.listen(redis_port.parse().unwrap()).await;
    let over_tls = format!("rediss://localhost:{}/0", address.port());
    let trust = certificate.file();
    check(
        &env,
        plain.expose(),
        &over_tls,
        &[("SSL_CERT_FILE", &trust)],
    )
    .await;

    let stranger = Certificate::make();
    let trust = stranger.file();
    let args = ["--redis-url", &over_tls, "--drain"];
    let worker = WorkerBinary::start_on_in(&env, &[("SSL_CERT_FILE", &trust)], &args).await;
    let finished = worker.finished().await;
    assert_ne!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("certificate"),
        "{}",
        finished.stderr
    );

    // The worker above ends before its reader connects.
    let url = over_tls.parse().unwrap();
    let mut link = RedisLink::<ExclusiveConnection>::exclusive(url, RedisTimeouts::default());
    let refused = link.get().await.unwrap_err();
    let refused = passerby_shared::ErrorChain(&refused).to_string();
    assert!(refused.contains("certificate"), "{refused}");
}

/// What a reply belongs to is not known any more: nothing is read from such a connection.
#[tokio::test]
async fn a_command_that_was_given_up_takes_its_connection_with_it() {
    let redis = OwnRedis::start(&[]).await;
    let mut link = RedisLink::exclusive(redis.url(), RedisTimeouts::default());
    let connection = link.get().await.unwrap();
    let mut block = redis::cmd("XREAD");
    block.arg("BLOCK").arg(200).arg("STREAMS").arg("s").arg("$");
    let given_up =
        tokio::time::timeout(std::time::Duration::from_millis(20), connection.ask(&block));
    assert!(given_up.await.is_err());

    let echo: Result<String, _> = redis::cmd("ECHO").arg("late").query_async(connection).await;

    let error = echo.unwrap_err();
    assert!(error.is_io_error(), "{error:?}");
    assert_eq!(
        link.judge(&error),
        passerby_shared::redis_connection::RedisRecovery::Reconnect
    );
    let connection = link.get().await.unwrap();
    let echo: String = redis::cmd("ECHO")
        .arg("late")
        .query_async(connection)
        .await
        .unwrap();
    assert_eq!(echo, "late");
    let both: (String, u64) = redis::pipe()
        .cmd("ECHO")
        .arg("a")
        .cmd("INCR")
        .arg("n")
        .query_async(connection)
        .await
        .unwrap();
    assert_eq!(both, ("a".to_owned(), 1));
}
