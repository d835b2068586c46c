//! The handshake from the first bytes to an open vhost, and the end of a connection.

use lapin::{Connection, ConnectionProperties, types::FieldTable};

use crate::{test_broker::*, wire::*};

/// Reads until the connection is open or closed; returns true when it opened.
async fn opens(wire: &mut Wire) -> bool {
    while let Some(frame) = wire.frame().await {
        if frame.number() == Some((10, 41)) {
            return true;
        }
        if frame.close().is_some() {
            return false;
        }
    }
    false
}

async fn tuning(s: &TestBroker) -> (Wire, Frame) {
    let mut wire = Wire::open(&s.url).await;
    wire.greet().await;
    wire.send(&start_ok("PLAIN", b"\0guest\0guest", true)).await;
    let tune = wire.expect((10, 30)).await;
    (wire, tune)
}

#[tokio::test]
async fn amqplain_logs_in() {
    with_broker(async |s| {
        let url = format!("{}?auth_mechanism=amqplain", s.url);
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        s.queue(&channel, "q", FieldTable::default()).await;
    })
    .await;
}

#[tokio::test]
async fn amqplain_with_a_wrong_password_is_403() {
    with_broker(async |s| {
        let mut wire = Wire::open(&s.url).await;
        wire.greet().await;
        let response = [entry("LOGIN", b'S', &long_string(b"guest")), entry("PASSWORD", b'S', &long_string(b"wrong"))].concat();
        wire.send(&start_ok("AMQPLAIN", &response, true)).await;
        assert_eq!(wire.close().await.map(|(code, _)| code), Some(403));
    })
    .await;
}

#[tokio::test]
async fn an_unknown_mechanism_never_opens() {
    with_broker(async |s| {
        let mut wire = Wire::open(&s.url).await;
        wire.greet().await;
        wire.send(&start_ok("GUESSING", b"", true)).await;
        wire.tune_and_open(CHANNEL_MAX, FRAME_MAX, 0).await;
        assert!(!opens(&mut wire).await);
    })
    .await;
}

#[tokio::test]
async fn the_server_offers_mechanisms_locale_and_capabilities() {
    with_broker(async |s| {
        let start = Wire::open(&s.url).await.greet().await;
        let text = String::from_utf8_lossy(&start.payload).into_owned();
        for wanted in [
            "PLAIN",
            "AMQPLAIN",
            "en_US",
            "publisher_confirms",
            "exchange_exchange_bindings",
            "basic.nack",
            "consumer_cancel_notify",
            "connection.blocked",
            "consumer_priorities",
            "authentication_failure_close",
            "per_consumer_qos",
        ] {
            assert!(text.contains(wanted), "{wanted}");
        }
        assert_eq!(start.payload[4..6], [0, 9], "version 0-9");
    })
    .await;
}

#[tokio::test]
async fn tuning_offers_channels_frames_and_heartbeats() {
    with_broker(async |s| {
        let (_wire, tune) = tuning(s).await;
        assert_eq!(tune.payload[4..], [&2_047_u16.to_be_bytes()[..], &FRAME_MAX.to_be_bytes(), &60_u16.to_be_bytes()].concat());
    })
    .await;
}

#[tokio::test]
async fn a_frame_size_outside_the_offer_never_opens() {
    with_broker(async |s| {
        for frame_max in [100, 4_095, FRAME_MAX + 1] {
            let (mut wire, _) = tuning(s).await;
            wire.tune_and_open(CHANNEL_MAX, frame_max, 0).await;
            assert!(!opens(&mut wire).await, "{frame_max}");
        }
    })
    .await;
}

#[tokio::test]
async fn more_channels_than_offered_never_open() {
    with_broker(async |s| {
        let (mut wire, _) = tuning(s).await;
        wire.tune_and_open(CHANNEL_MAX + 1, FRAME_MAX, 0).await;
        assert!(!opens(&mut wire).await);
    })
    .await;
}

#[tokio::test]
async fn no_more_channels_open_than_were_tuned() {
    with_broker(async |s| {
        let (mut wire, _) = tuning(s).await;
        wire.tune_and_open(2, FRAME_MAX, 0).await;
        wire.expect((10, 41)).await;
        wire.channel(1).await;
        wire.channel(2).await;
        wire.send(&Method::new(20, 10).text("").on(3)).await;
        assert_eq!(wire.close().await.map(|(code, _)| code), Some(530));
    })
    .await;
}

#[tokio::test]
async fn the_smallest_frames_carry_a_large_body() {
    with_broker(async |s| {
        let url = format!("{}?frame_max=4096", s.url);
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(Default::default()).await.unwrap();
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let body: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        publish(&channel, "", &name, &body).await;
        assert_eq!(take(&channel, &name).await.unwrap().data, body);
    })
    .await;
}

#[tokio::test]
async fn the_server_beats_and_leaves_a_silent_client() {
    with_broker(async |s| {
        let (mut wire, _) = tuning(s).await;
        wire.tune_and_open(CHANNEL_MAX, FRAME_MAX, 1).await;
        wire.expect((10, 41)).await;
        let mut beats = 0;
        while let Some(frame) = wire.frame().await {
            assert_eq!((frame.kind, frame.channel, frame.payload.len()), (8, 0, 0));
            beats += 1;
        }
        assert!(beats >= 1);
    })
    .await;
}

#[tokio::test]
async fn a_heartbeat_of_the_client_is_taken_at_any_time() {
    with_broker(async |s| {
        let mut wire = Wire::log_in(&s.url).await;
        wire.send(&frame(8, 0, b"")).await;
        wire.channel(1).await;
        wire.send(&frame(8, 0, b"")).await;
        wire.channel(2).await;
    })
    .await;
}

#[tokio::test]
async fn a_close_is_answered_and_the_stream_ends() {
    with_broker(async |s| {
        let mut wire = Wire::log_in(&s.url).await;
        wire.channel(1).await;
        wire.send(&Method::new(10, 50).bytes(&200_u16.to_be_bytes()).text("bye").bytes(&[0; 4]).on(0)).await;
        wire.expect((10, 51)).await;
        // RabbitMQ expects the client to begin, and begins itself only after 30 s.
        wire.finish().await;
        assert_eq!(wire.frame().await, None);
    })
    .await;
}

#[tokio::test]
async fn after_its_own_close_the_server_waits_for_the_answer_and_ends() {
    with_broker(async |s| {
        let mut wire = Wire::log_in(&s.url).await;
        // A method on a channel that was never opened.
        wire.send(&Method::new(60, 70).reserved().text("q").octet(0).on(5)).await;
        assert_eq!(wire.close().await.map(|(code, _)| code), Some(504));
        wire.send(&Method::new(10, 51).on(0)).await;
        assert_eq!(wire.frame().await, None);
    })
    .await;
}

#[tokio::test]
async fn a_foreign_protocol_is_told_ours() {
    with_broker(async |s| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = s.url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET / HT").await.unwrap();
        let mut answer = Vec::new();
        // A broker may drop unread bytes, which resets the stream after its answer.
        if let Err(error) = socket.read_to_end(&mut answer).await {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        assert_eq!(answer, HEADER);
    })
    .await;
}
