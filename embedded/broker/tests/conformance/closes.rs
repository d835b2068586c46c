//! Close frames: their reply code, class and method.

use crate::{test_broker::*, wire::*};

async fn channel_one(s: &TestBroker) -> Wire {
    let mut wire = Wire::log_in(&s.url).await;
    wire.channel(1).await;
    wire
}

/// Sends one method on channel 1 and returns the refusal.
async fn refused(s: &TestBroker, method: Method) -> Option<(u16, (u16, u16))> {
    let mut wire = channel_one(s).await;
    wire.send(&method.on(1)).await;
    wire.close().await
}

fn declare_queue(name: &str, flags: u8, arguments: &[u8]) -> Method {
    Method::new(50, 10).reserved().text(name).octet(flags).long_text(arguments)
}

fn declare_exchange(name: &str, kind: &str, flags: u8) -> Method {
    Method::new(40, 10).reserved().text(name).text(kind).octet(flags).long_text(b"")
}

fn publish_method(exchange: &str, key: &str, flags: u8) -> Method {
    Method::new(60, 40).reserved().text(exchange).text(key).octet(flags)
}

const PASSIVE: u8 = 1;
const EXCLUSIVE: u8 = 4;

#[tokio::test]
async fn not_found_tells_which_method() {
    with_broker(async |s| {
        let none = &s.name("none");
        for (method, about) in [
            (declare_queue(none, PASSIVE, b""), (50, 10)),
            (Method::new(50, 20).reserved().text(none).text("amq.direct").text("k").octet(0).long_text(b""), (50, 20)),
            (Method::new(50, 30).reserved().text(none).octet(0), (50, 30)),
            (Method::new(60, 20).reserved().text(none).text("").octet(0).long_text(b""), (60, 20)),
            (Method::new(60, 70).reserved().text(none).octet(0), (60, 70)),
            (declare_exchange(none, "direct", PASSIVE), (40, 10)),
            (Method::new(40, 30).reserved().text(none).text("amq.direct").text("k").octet(0).long_text(b""), (40, 30)),
        ] {
            assert_eq!(refused(s, method).await, Some((404, about)));
        }
    })
    .await;
}

#[tokio::test]
async fn unbinding_from_what_is_not_there_is_fine() {
    with_broker(async |s| {
        let none = &s.name("none");
        let mut wire = channel_one(s).await;
        wire.send(&Method::new(50, 50).reserved().text(none).text("amq.direct").text("k").long_text(b"").on(1)).await;
        wire.expect((50, 51)).await;
        wire.send(&declare_queue("", EXCLUSIVE, b"").on(1)).await;
        wire.expect((50, 11)).await;
        wire.send(&Method::new(50, 50).reserved().text("").text(none).text("k").long_text(b"").on(1)).await;
        wire.expect((50, 51)).await;
        wire.send(&Method::new(40, 40).reserved().text(none).text("amq.direct").text("k").octet(0).long_text(b"").on(1)).await;
        wire.expect((40, 51)).await;
        wire.send(&Method::new(40, 40).reserved().text("amq.fanout").text(none).text("k").octet(0).long_text(b"").on(1)).await;
        wire.expect((40, 51)).await;
    })
    .await;
}

#[tokio::test]
async fn names_of_the_server_are_not_declared_by_clients() {
    with_broker(async |s| {
        let reserved = Some((403, (50, 10)));
        assert_eq!(refused(s, declare_queue(&format!("amq.{}", s.name("own")), EXCLUSIVE, b"")).await, reserved);
        let mut wire = channel_one(s).await;
        wire.send(&declare_queue("", EXCLUSIVE, b"").on(1)).await;
        let ok = wire.expect((50, 11)).await;
        let length = usize::from(ok.payload[4]);
        let given = String::from_utf8(ok.payload[5..5 + length].to_vec()).unwrap();
        assert!(given.starts_with("amq.gen-"), "{given}");
        wire.send(&declare_queue(&given, PASSIVE, b"").on(1)).await;
        wire.expect((50, 11)).await;
        wire.send(&declare_queue(&given, EXCLUSIVE, b"").on(1)).await;
        assert_eq!(wire.close().await, reserved);
        assert_eq!(refused(s, declare_exchange(&format!("amq.{}", s.name("own")), "direct", 0)).await, Some((403, (40, 10))));
    })
    .await;
}

#[tokio::test]
async fn a_prefetch_size_in_bytes_is_not_implemented() {
    with_broker(async |s| {
        let qos = Method::new(60, 10).bytes(&1_024_u32.to_be_bytes()).bytes(&1_u16.to_be_bytes()).octet(0);
        assert_eq!(refused(s, qos).await, Some((540, (60, 10))));
    })
    .await;
}

#[tokio::test]
async fn a_publish_to_nowhere_is_404_about_publish_and_only_once() {
    with_broker(async |s| {
        let mut wire = channel_one(s).await;
        let publish = [publish_method(&s.name("none"), "k", 0).on(1), content_header(1, 1), frame(3, 1, b"x")].concat();
        // Frames after the first one are dropped without an answer.
        wire.send(&[publish.clone(), publish].concat()).await;
        let first = wire.frame().await.unwrap();
        assert_eq!((first.channel, first.close()), (1, Some((404, (60, 40)))));
        wire.send(&Method::new(20, 41).on(1)).await;
        wire.channel(1).await;
    })
    .await;
}

#[tokio::test]
async fn a_locked_queue_is_405_for_every_method() {
    with_broker(async |s| {
        let name = &s.name("q");
        let mut owner = channel_one(s).await;
        owner.send(&declare_queue(name, EXCLUSIVE, b"").on(1)).await;
        owner.expect((50, 11)).await;
        for (method, about) in [
            (declare_queue(name, EXCLUSIVE, b""), (50, 10)),
            (declare_queue(name, PASSIVE, b""), (50, 10)),
            (Method::new(50, 20).reserved().text(name).text("amq.direct").text("k").octet(0).long_text(b""), (50, 20)),
            (Method::new(50, 30).reserved().text(name).octet(0), (50, 30)),
            (Method::new(50, 40).reserved().text(name).octet(0), (50, 40)),
            (Method::new(60, 20).reserved().text(name).text("").octet(0).long_text(b""), (60, 20)),
            (Method::new(60, 70).reserved().text(name).octet(0), (60, 70)),
        ] {
            assert_eq!(refused(s, method).await, Some((405, about)));
        }
    })
    .await;
}

#[tokio::test]
async fn a_broken_precondition_is_406_about_its_method() {
    with_broker(async |s| {
        let name = &s.name("q");
        let mut owner = channel_one(s).await;
        owner.send(&declare_queue(name, 0, b"").on(1)).await;
        owner.expect((50, 11)).await;
        for (method, about) in [
            (declare_queue(name, 2, b""), (50, 10)),
            (declare_queue(&s.name("wrong"), EXCLUSIVE, &entry("x-message-ttl", b'I', &(-1_i32).to_be_bytes())), (50, 10)),
            (declare_exchange("amq.direct", "fanout", 2), (40, 10)),
            (Method::new(60, 80).tag(7).octet(0), (60, 80)),
            (Method::new(60, 90).tag(7).octet(0), (60, 90)),
            (Method::new(60, 120).tag(7).octet(0), (60, 120)),
        ] {
            assert_eq!(refused(s, method).await, Some((406, about)));
        }
        owner.send(&Method::new(50, 40).reserved().text(name).octet(0).on(1)).await;
        owner.expect((50, 41)).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_forbidden_is_403_about_its_method() {
    with_broker(async |s| {
        for (method, about) in [
            (declare_queue("amq.mine", 0, b""), (50, 10)),
            (declare_exchange("amq.mine", "direct", 0), (40, 10)),
            (declare_exchange("", "direct", 0), (40, 10)),
            (Method::new(40, 20).reserved().text("amq.topic").octet(0), (40, 20)),
            (Method::new(40, 20).reserved().text("").octet(0), (40, 20)),
            (Method::new(40, 30).reserved().text("amq.topic").text("").text("k").octet(0).long_text(b""), (40, 30)),
        ] {
            assert_eq!(refused(s, method).await, Some((403, about)));
        }
    })
    .await;
}

#[tokio::test]
async fn a_consumer_tag_in_use_is_530_and_closes_the_connection() {
    with_broker(async |s| {
        let mut wire = channel_one(s).await;
        wire.send(&declare_queue(&s.name("q"), EXCLUSIVE, b"").on(1)).await;
        wire.expect((50, 11)).await;
        let consume = Method::new(60, 20).reserved().text("").text("tag").octet(0).long_text(b"").on(1);
        wire.send(&consume).await;
        wire.expect((60, 21)).await;
        wire.send(&consume).await;
        let close = wire.frame().await.unwrap();
        assert_eq!((close.channel, close.close()), (0, Some((530, (60, 20)))));
    })
    .await;
}

#[tokio::test]
async fn what_is_not_implemented_is_540_and_closes_the_connection() {
    with_broker(async |s| {
        let immediate = 2;
        for (methods, about) in [
            (vec![publish_method("", "k", immediate).on(1), content_header(1, 0)], (60, 40)),
            (vec![Method::new(60, 110).octet(0).on(1)], (60, 110)),
        ] {
            let mut wire = channel_one(s).await;
            wire.send(&methods.concat()).await;
            let close = wire.frame().await.unwrap();
            assert_eq!((close.channel, close.close()), (0, Some((540, about))));
        }
    })
    .await;
}

#[tokio::test]
async fn opening_a_channel_twice_is_504() {
    with_broker(async |s| {
        let mut wire = channel_one(s).await;
        wire.send(&Method::new(20, 10).text("").on(1)).await;
        assert_eq!(wire.close().await.map(|(code, _)| code), Some(504));
    })
    .await;
}

#[tokio::test]
async fn a_channel_close_is_answered_and_frees_the_number() {
    with_broker(async |s| {
        let mut wire = channel_one(s).await;
        for _ in 0..3 {
            wire.send(&Method::new(20, 40).bytes(&200_u16.to_be_bytes()).text("bye").bytes(&[0; 4]).on(1)).await;
            wire.expect((20, 41)).await;
            wire.channel(1).await;
        }
    })
    .await;
}

#[tokio::test]
async fn flow_that_goes_on_is_answered() {
    with_broker(async |s| {
        let mut wire = channel_one(s).await;
        wire.send(&Method::new(20, 20).octet(1).on(1)).await;
        assert_eq!(wire.expect((20, 21)).await.payload[4], 1);
    })
    .await;
}

#[tokio::test]
async fn without_wait_nothing_is_answered() {
    with_broker(async |s| {
        let name = &s.name("q");
        let nowait = 16;
        let mut wire = channel_one(s).await;
        wire.send(&declare_queue(name, nowait | EXCLUSIVE, b"").on(1)).await;
        wire.send(&Method::new(50, 20).reserved().text(name).text("amq.direct").text(name).octet(1).long_text(b"").on(1)).await;
        wire.send(&Method::new(85, 10).octet(1).on(1)).await;
        wire.send(&Method::new(60, 20).reserved().text(name).text("c").octet(8).long_text(b"").on(1)).await;
        wire.send(&Method::new(60, 30).text("c").octet(1).on(1)).await;
        wire.send(&Method::new(50, 30).reserved().text(name).octet(1).on(1)).await;
        wire.send(&declare_queue(name, PASSIVE, b"").on(1)).await;
        // The first answer is that of the only request that waits for one.
        wire.expect((50, 11)).await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_queue_cancels_consumers_that_can_be_told() {
    with_broker(async |s| {
        for is_told in [true, false] {
            let name = &s.name(if is_told { "told" } else { "untold" });
            let mut wire = Wire::open(&s.url).await;
            wire.greet().await;
            wire.send(&start_ok("PLAIN", b"\0guest\0guest", is_told)).await;
            wire.expect((10, 30)).await;
            wire.tune_and_open(CHANNEL_MAX, FRAME_MAX, 0).await;
            wire.expect((10, 41)).await;
            wire.channel(1).await;
            wire.send(&declare_queue(name, 0, b"").on(1)).await;
            wire.expect((50, 11)).await;
            wire.send(&Method::new(60, 20).reserved().text(name).text("c").octet(0).long_text(b"").on(1)).await;
            wire.expect((60, 21)).await;
            let mut other = channel_one(s).await;
            other.send(&Method::new(50, 40).reserved().text(name).octet(0).on(1)).await;
            other.expect((50, 41)).await;
            wire.send(&Method::new(20, 20).octet(1).on(1)).await;
            if is_told {
                assert_eq!(wire.expect((60, 30)).await.payload[4..6], [1, b'c']);
            }
            wire.expect((20, 21)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn confirms_count_from_one_and_cover_everything_once() {
    with_broker(async |s| {
        let mut wire = channel_one(s).await;
        wire.send(&Method::new(85, 10).octet(0).on(1)).await;
        wire.expect((85, 11)).await;
        let publish = [publish_method("", &s.name("none"), 0).on(1), content_header(1, 0)].concat();
        wire.send(&publish.repeat(50)).await;
        let mut confirmed = std::collections::BTreeSet::new();
        while confirmed.len() < 50 {
            let ack = wire.expect((60, 80)).await;
            let tag = u64::from_be_bytes(ack.payload[4..12].try_into().unwrap());
            let is_multiple = ack.payload[12] & 1 != 0;
            let from = if is_multiple { (1..=tag).find(|one| !confirmed.contains(one)).unwrap() } else { tag };
            for one in from..=tag {
                assert!(confirmed.insert(one) || is_multiple, "{one} twice");
            }
        }
        assert_eq!(confirmed, (1..=50).collect());
    })
    .await;
}
