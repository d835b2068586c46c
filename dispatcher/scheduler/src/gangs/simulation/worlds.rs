//! Kinds of worlds: crowds, many gangs, runs that outlast a gathering, and all that can go wrong.

use super::{END_MS, Task, World, single};
use crate::{
    gangs::{GATHER_MS, Mistake},
    simulation::random::Random,
};

/// Few gangs among far more single tasks than the nodes can run for a while.
fn crowd(mut random: Random, mistake: Option<Mistake>) -> World {
    let (nodes, slots) = (random.between(2, 6) as u32, random.between(1, 3) as u32);
    let longest = random.between(2_000, 30_000);
    let count = random.between(1, 4) as u64;
    let gang = |uid: u64, random: &mut Random| Task {
        priority: random.between(0, 1) as i32,
        instances: random.between(2, nodes.into()) as u32,
        slots: random.between(1, slots.into()) as u32,
        ..single(uid, random.between(0, 30_000), random.between(500, longest))
    };
    let mut tasks: Vec<Task> = (1..=count).map(|uid| gang(uid, &mut random)).collect();
    let gang_ms = 6 * longest + 20_000;
    let mut work_ms = 0;
    while work_ms < 3 * gang_ms * count as i64 * i64::from(nodes * slots) {
        let run_ms = random.between(longest / 2, longest);
        work_ms += run_ms;
        tasks.push(single(1_000 + tasks.len() as u64, 0, run_ms));
    }
    let mut world = World::new(random, nodes, slots, tasks, mistake);
    world.waits_max = Some((gang_ms * count as i64, 8 * longest + 60_000));
    world
}

/// Many gangs that would have all nodes for long, and some single tasks.
fn gangs_galore(mut random: Random, mistake: Option<Mistake>) -> World {
    let nodes = random.between(2, 5) as u32;
    let longest = random.between(5_000, 20_000);
    let mut tasks: Vec<Task> = (1..=60)
        .map(|uid| Task { instances: random.between((nodes - 1).max(2).into(), nodes.into()) as u32, ..single(uid, 0, longest) })
        .collect();
    tasks.extend((0..40).map(|index| single(1_000 + index, random.between(0, 60_000), random.between(500, longest))));
    let mut world = World::new(random, nodes, 1, tasks, mistake);
    world.waits_max = Some((END_MS, 8 * longest + 60_000));
    world
}

/// A node has a task that outlasts a gathering, another gang wants more nodes than there are for long, and smaller
/// ones stand behind both.
fn outlasting(mut random: Random, mistake: Option<Mistake>) -> World {
    let endless = 5 * GATHER_MS;
    let mut tasks = vec![single(1_000, 0, endless)];
    tasks.push(Task { instances: 4, ..single(1, 5_000, 5_000) });
    tasks.push(Task { instances: 9, priority: 2, ..single(2, 4_000, 5_000) });
    tasks.extend((3..6).map(|uid| Task { instances: 3, ..single(uid, 6_000, random.between(1_000, 20_000)) }));
    World::new(random, 4, 1, tasks, mistake)
}

/// All that can go wrong, for some minutes.
fn troubled(mut random: Random, mistake: Option<Mistake>) -> World {
    let (nodes, slots) = (random.between(3, 7) as u32, random.between(1, 2) as u32);
    let mut tasks: Vec<Task> = (1..=random.between(10, 30) as u64)
        .map(|uid| Task {
            instances: random.between(1, nodes.into()) as u32,
            slots: random.between(1, slots.into()) as u32,
            priority: random.between(-1, 1) as i32,
            ..single(uid, random.between(0, 200_000), random.between(500, 20_000))
        })
        .collect();
    tasks.extend(
        (0..random.between(0, 200) as u64).map(|index| single(1_000 + index, random.between(0, 200_000), random.between(500, 20_000))),
    );
    let mut world = World::new(random, nodes, slots, tasks, mistake);
    (world.is_calm, world.troubles_until) = (false, 240_000);
    world
}

/// The world of a seed.
pub fn world(seed: u64, mistake: Option<Mistake>) -> World {
    let random = Random::new(seed);
    match seed % 4 {
        0 => crowd(random, mistake),
        1 => gangs_galore(random, mistake),
        2 => outlasting(random, mistake),
        _ => troubled(random, mistake),
    }
}
