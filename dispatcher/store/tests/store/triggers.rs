//! Triggers, and what they have acted on.

use model::trigger::{Progress, Seen, SeenKey, TriggerRow};

use crate::fixture::{Fixture, Location, at, first, id, wait};

fn trigger(name: &str, uid: u64) -> TriggerRow {
    let spec = r##"{"bucket":{"name":"b","prefix":"in/","suffix":".txt","minBytes":1,"exchange":"x","pattern":"#","listingInterval":"PT1M","includeExisting":true},
        "task":{"poolId":"p","jobId":"j","template":{"commandLine":"true"}},"batchSize":7,"batchTime":"PT2S"}"##;
    TriggerRow {
        id: id(name),
        uid,
        version: uid + 1,
        is_paused: true,
        spec: serde_json::from_str(spec).unwrap(),
        progress: Progress { fired: 3, last_event: Some(at(5)), ..Progress::default() },
        created_at: at(1),
        modified_at: at(2),
    }
}

fn key(key: &str, content: u8) -> SeenKey {
    SeenKey { key: key.to_owned(), content: [content; 8] }
}

pub fn a_trigger_survives_whatever_the_case_of_its_name(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (mine, other) = (trigger("Mine", 4), trigger("other", 5));
    fixture.write(|store| {
        store.put_trigger(&trigger("MINE", 4))?;
        store.put_trigger(&mine)?;
        store.put_trigger(&other)?;
        store.put_trigger(&trigger("gone", 6))?;
        store.delete_trigger(&id("GONE"))
    });
    assert_eq!(wait(fixture.read.trigger(&id("mINE"))).unwrap(), Some(mine.clone()));
    assert_eq!(wait(fixture.read.triggers(first(9))).unwrap(), [mine.clone(), other.clone()]);
    let loaded = fixture.store.load().unwrap();
    assert_eq!(loaded.triggers.len(), 2);
    assert!(loaded.next_version > 7, "its version is never given again");
}

pub fn what_a_trigger_has_seen_is_noted_once_and_comes_in_the_order_of_bytes(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let keys = [key("B", 1), key("a", 1), key("a", 2), key("é", 1)];
    fixture.write(|store| {
        for key in keys.iter().rev() {
            assert!(store.see(9, key, at(3))?);
            assert!(!store.see(9, key, at(4))?);
        }
        assert!(store.see(8, &key("a", 1), at(3))?, "another trigger");
        assert!(store.see(9, &key("gone", 1), at(3))?);
        store.forget_seen(9, &key("gone", 1))
    });
    let all: Vec<Seen> = keys.iter().map(|key| Seen { key: key.clone(), at: at(3) }).collect();
    let between = |after: Option<SeenKey>, last: Option<&str>, count| {
        wait(fixture.read.seen_between(9, after, last.map(str::to_owned), count)).unwrap()
    };
    assert_eq!(between(None, None, 9), all);
    assert_eq!(between(None, None, 2), all[..2]);
    assert_eq!(between(Some(key("a", 1)), None, 9), all[2..]);
    assert_eq!(between(Some(key("B", 1)), Some("a"), 9), all[1..3]);
    let asked = vec![key("a", 2), key("a", 3), key("B", 1)];
    assert_eq!(wait(fixture.read.seen_of(9, asked)).unwrap(), [key("a", 2), key("B", 1)]);
    fixture.write(|store| {
        assert_eq!((store.next_seer(None)?, store.next_seer(Some(8))?, store.next_seer(Some(9))?), (Some(8), Some(9), None));
        assert_eq!((store.forget_all_seen(9, 3)?, store.forget_all_seen(9, 3)?, store.forget_all_seen(9, 3)?), (3, 1, 0));
        assert_eq!(store.next_seer(Some(8))?, None);
        Ok(())
    });
}
