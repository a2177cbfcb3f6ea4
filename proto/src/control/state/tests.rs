use super::*;
use proptest::prelude::*;

fn change(name: &str, body: Option<&[u8]>) -> Change {
    Change {
        kind: Kind::Grant,
        name: name.to_owned(),
        body: body.map(Into::into),
        expect: None,
        by: "admin".to_owned(),
    }
}

/// Reads on until everything is known.
fn read(reader: &mut Control, machine: &Control, bytes_max: usize) {
    for _ in 0..10_000 {
        let page = machine.page(reader.position(), bytes_max);
        reader.adopt(page).unwrap();
        if reader.is_complete() && reader.version() == machine.version() {
            return;
        }
    }
    panic!("reading never ends");
}

fn all(control: &Control) -> Vec<&Resource> {
    [Kind::Grant, Kind::Policy, Kind::Server]
        .into_iter()
        .flat_map(|kind| control.iter(kind))
        .collect()
}

#[test]
fn changes_are_counted_and_refused_where_they_do_not_fit() {
    let mut control = Control::default();
    let put = change("a", Some(b"1"));
    assert_eq!(control.apply(&put, 5), Ok(1));
    assert_eq!(control.get(Kind::Grant, "a").unwrap().changed_ms, 5);
    assert_eq!(control.get(Kind::Policy, "a"), None);
    let before = control.hash();
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    let huge = vec![0; BODY_BYTES_MAX + 1];
    let expecting = |expect, body: Option<&[u8]>| Change {
        expect: Some(expect),
        ..change("a", body)
    };
    let by = Change {
        by: "b".repeat(BY_BYTES_MAX + 1),
        ..put.clone()
    };
    for (refused, refusal) in [
        (change("", Some(b"")), Refusal::TooLarge),
        (change(&long, Some(b"")), Refusal::TooLarge),
        (change("a", Some(&huge)), Refusal::TooLarge),
        (by, Refusal::TooLarge),
        (change("b", None), Refusal::Unknown),
        (expecting(0, Some(b"2")), Refusal::Changed { version: 1 }),
        (expecting(2, None), Refusal::Changed { version: 1 }),
    ] {
        assert_eq!(control.apply(&refused, 6), Err(refusal));
        assert_eq!(control.hash(), before);
    }
    assert_eq!(control.apply(&expecting(1, Some(b"2")), 6), Ok(2));
    assert_eq!(control.apply(&expecting(2, None), 7), Ok(3));
    assert_eq!(control.apply(&change("a", None), 7), Err(Refusal::Unknown));
    // A deleted resource is none.
    assert_eq!(control.apply(&expecting(0, Some(b"3")), 8), Ok(4));
    assert_eq!((control.len(), control.bytes()), (1, 1));
}

#[test]
fn bytes_of_all_documents_are_bounded() {
    let mut control = Control::default();
    let body: Arc<[u8]> = vec![7; BODY_BYTES_MAX].into();
    let large = |n: usize| Change {
        body: Some(body.clone()),
        ..change(&n.to_string(), None)
    };
    for n in 0..BYTES_MAX / BODY_BYTES_MAX {
        control.apply(&large(n), 0).unwrap();
    }
    assert_eq!(
        control.apply(&change("more", Some(b"1")), 0),
        Err(Refusal::Full)
    );
    // In place of another there is room.
    assert!(control.apply(&large(3), 0).is_ok());
    assert!(control.apply(&change("3", None), 0).is_ok());
    assert!(control.apply(&change("more", Some(b"1")), 0).is_ok());
    // A page holds one document at least.
    assert_eq!(control.page(Position::default(), 1).resources.len(), 1);
}

#[test]
fn a_reader_that_missed_a_forgotten_deletion_begins_anew_and_one_that_is_reading_goes_on() {
    let mut machine = Control::default();
    for n in 0..10 {
        machine
            .apply(&change(&format!("kept{n}"), Some(b"x")), 0)
            .unwrap();
    }
    machine.apply(&change("gone", Some(b"x")), 0).unwrap();
    let mut early = Control::default();
    read(&mut early, &machine, 1 << 20);
    machine.apply(&change("gone", None), 0).unwrap();
    for n in 0..TOMBSTONES_MAX {
        machine
            .apply(&change(&n.to_string(), Some(b"x")), 0)
            .unwrap();
        machine.apply(&change(&n.to_string(), None), 0).unwrap();
    }
    assert!(machine.page(early.position(), 1 << 20).after.upto == 0);
    read(&mut early, &machine, 1 << 20);
    assert_eq!(all(&early), all(&machine));
    // Positions below the floor are fine for somebody who has begun after it.
    let mut late = Control::default();
    late.adopt(machine.page(late.position(), 1)).unwrap();
    assert!(late.position().upto < machine.floor && !late.is_complete());
    read(&mut late, &machine, 1);
    assert_eq!(all(&late), all(&machine));
    assert_eq!(late.len(), 10);
}

#[test]
fn late_pages_and_those_of_others_never_make_what_is_known_older() {
    let mut machine = Control::default();
    machine.apply(&change("a", Some(b"1")), 0).unwrap();
    let mut reader = Control::default();
    let first = machine.page(reader.position(), 1 << 20);
    assert_eq!(reader.adopt(first.clone()), Ok(true));
    assert_eq!(
        reader.adopt(machine.page(reader.position(), 1 << 20)),
        Ok(false)
    );
    machine.apply(&change("a", None), 0).unwrap();
    let second = machine.page(reader.position(), 1 << 20);
    assert_eq!(reader.adopt(second.clone()), Ok(true));
    assert_eq!(reader.get(Kind::Grant, "a"), None);
    // The page before comes again: the deleted grant stays deleted.
    assert_eq!(reader.adopt(first), Err(Stale));
    assert_eq!(reader.adopt(second.clone()), Ok(false));
    let ahead = Page {
        after: Position {
            upto: 9,
            since: second.after.since,
        },
        upto: 9,
        newest: 9,
        ..Page::default()
    };
    let foreign = Page {
        after: Position { upto: 1, since: 7 },
        ..second.clone()
    };
    let beyond = Page { upto: 3, ..second };
    for page in [ahead, foreign, beyond] {
        assert_eq!(reader.adopt(page), Err(Stale));
    }
}

proptest! {
    #[test]
    fn readers_and_dumps_have_what_the_machine_has(
        steps in proptest::collection::vec((0..3u8, 0..6u8, prop::option::weighted(0.7, 0..40usize), any::<bool>()), 1..120),
        bytes_max in 0..2_000usize,
    ) {
        let mut machine = Control::default();
        let mut reader = Control::default();
        let mut reference: BTreeMap<(u8, u8), Vec<u8>> = BTreeMap::new();
        for (kind, name, body, reads) in steps {
            let body = body.map(|length| vec![name; length]);
            let change = Change {
                kind: [Kind::Grant, Kind::Policy, Kind::Server][usize::from(kind)],
                ..change(&name.to_string(), body.as_deref())
            };
            let done = machine.apply(&change, 1).is_ok();
            let known = match body {
                Some(body) => { reference.insert((kind, name), body); true }
                None => reference.remove(&(kind, name)).is_some(),
            };
            prop_assert_eq!(done, known);
            if reads {
                reader.adopt(machine.page(reader.position(), bytes_max)).unwrap();
            }
        }
        let found: Vec<_> = all(&machine).iter().map(|r| r.body.as_deref().unwrap().to_vec()).collect();
        prop_assert_eq!(found, reference.values().cloned().collect::<Vec<_>>());
        prop_assert_eq!(machine.len(), reference.len());
        read(&mut reader, &machine, bytes_max);
        prop_assert_eq!(all(&reader), all(&machine));
        let loaded = Control::load(machine.records()).unwrap();
        prop_assert_eq!(loaded.hash(), machine.hash());
        prop_assert_eq!(loaded, machine);
    }
}
