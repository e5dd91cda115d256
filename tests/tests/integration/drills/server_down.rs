use passerby_tests::Env;

use super::Drill;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_while_a_server_is_away_is_stored_when_it_is_back() {
    let mut drill = Drill::begin("server_down", Env::dedicated().await);
    let _worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(1).await;
    drill.all_stored().await;

    drill.env.servers.kill_postgres().await;
    drill.record_entries(2).await;
    drill.shows(&["store-unknown", "storing-nothing"]).await;
    drill.terminal.note("Postgres is away");
    assert_eq!(drill.types("status --check").await.code, Some(3));
    drill.env.servers.restart_postgres().await;
    drill.all_stored().await;

    drill.env.servers.kill_redis().await;
    drill.accept(10).await;
    drill.shows(&["redis-unknown"]).await;
    drill.terminal.note("Redis is away");
    assert_eq!(drill.types("status --check").await.code, Some(3));
    drill.env.servers.restart_redis().await;
    drill.publish().await;
    drill.all_stored().await;
    drill.over().await;
}
