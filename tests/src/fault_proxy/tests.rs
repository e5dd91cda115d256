use super::*;
use crate::eventually;

/// A server that answers every byte with the same byte, behind a proxy.
struct Echo {
    proxy: FaultProxy,
    _server: JoinSet<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut echoes = JoinSet::new();
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                echoes.spawn(async move {
                    let (mut read, mut write) = connection.into_split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap_or(0)
                });
            }
        });
        Self {
            proxy: FaultProxy::start(port).await,
            _server: server,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.proxy.port()))
            .await
            .unwrap()
    }
}

/// What comes back before the connection ends.
async fn rest(mut connection: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 64];
    while let Ok(n @ 1..) = connection.read(&mut buffer).await {
        bytes.extend_from_slice(&buffer[..n]);
    }
    bytes
}

async fn ask(connection: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    connection.write_all(bytes).await.unwrap();
    let mut reply = vec![0; bytes.len()];
    connection.read_exact(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn without_a_fault_bytes_come_through() {
    let echo = Echo::start().await;
    assert_eq!(ask(&mut echo.connect().await, b"hello").await, b"hello");
}

#[tokio::test]
async fn a_black_hole_delays_and_keeps_all() {
    for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
        let echo = Echo::start().await;
        let mut connection = echo.connect().await;
        ask(&mut connection, b"a").await;
        echo.proxy.set(Fault::BlackHole(direction));
        connection.write_all(b"bc").await.unwrap();
        eventually("the bytes are in the proxy", async || {
            echo.proxy.n_bytes() == 2
        })
        .await;
        let mut byte = [0];
        assert!(connection.try_read(&mut byte).is_err());

        echo.proxy.heal();

        let mut reply = [0; 2];
        connection.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"bc");
    }
}

#[tokio::test]
async fn a_connection_is_cut_after_a_number_of_bytes_once() {
    let echo = Echo::start().await;
    let mut connection = echo.connect().await;
    ask(&mut connection, b"before").await;
    echo.proxy.set(Fault::CutAfter(4));
    assert_eq!(ask(&mut connection, b"abc").await, b"abc");
    connection.write_all(b"defg").await.unwrap();
    rest(connection).await;
    assert!(echo.proxy.was_met());
    assert_eq!(ask(&mut echo.connect().await, b"hello").await, b"hello");
}

#[tokio::test]
async fn a_pattern_is_found_over_packets_and_its_reply_is_lost() {
    let echo = Echo::start().await;
    echo.proxy.set(Fault::LoseReplyTo(b"COMMIT"));
    let mut connection = echo.connect().await;
    assert_eq!(ask(&mut connection, b"xxCOM").await, b"xxCOM");
    connection.write_all(b"MIT").await.unwrap();
    assert_eq!(rest(connection).await, b"");
    assert_eq!(ask(&mut echo.connect().await, b"COMMIT").await, b"COMMIT");
}

#[tokio::test]
async fn a_pattern_is_held_or_cut_before_the_server_sees_it() {
    let echo = Echo::start().await;
    echo.proxy.set(Fault::HoldBefore(b"XACK"));
    let mut connection = echo.connect().await;
    assert_eq!(ask(&mut connection, b"XADD").await, b"XADD");
    connection.write_all(b"XACK").await.unwrap();
    echo.proxy.met().await;
    assert!(connection.try_read(&mut [0]).is_err());
    echo.proxy.heal();
    let mut reply = [0; 4];
    connection.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"XACK");

    echo.proxy.set(Fault::CutBefore(b"XACK"));
    connection.write_all(b"XACK").await.unwrap();
    assert_eq!(rest(connection).await, b"");
}

#[tokio::test]
async fn refused_connections_end_at_once_and_old_ones_with_them() {
    let echo = Echo::start().await;
    let mut old = echo.connect().await;
    ask(&mut old, b"a").await;
    echo.proxy.set(Fault::Refuse);
    assert_eq!(rest(old).await, b"");
    assert_eq!(rest(echo.connect().await).await, b"");
    echo.proxy.heal();
    assert_eq!(ask(&mut echo.connect().await, b"b").await, b"b");
}

#[tokio::test]
async fn a_connection_is_cut_after_a_number_of_reply_bytes_once() {
    let echo = Echo::start().await;
    let mut connection = echo.connect().await;
    ask(&mut connection, b"before").await;
    echo.proxy.set(Fault::CutReplyAfter(4));
    assert_eq!(ask(&mut connection, b"abc").await, b"abc");
    connection.write_all(b"defg").await.unwrap();
    assert_eq!(rest(connection).await, b"d");
    assert!(echo.proxy.was_met());
    assert_eq!(ask(&mut echo.connect().await, b"hello").await, b"hello");
}

#[tokio::test]
async fn a_delay_keeps_all_and_takes_its_time() {
    let echo = Echo::start().await;
    let mut connection = echo.connect().await;
    let delay = Duration::from_millis(20);
    echo.proxy.set(Fault::Delay(delay));
    let asked_at = tokio::time::Instant::now();
    assert_eq!(ask(&mut connection, b"hello").await, b"hello");
    assert!(asked_at.elapsed() >= 2 * delay);
}
