//! Checked messages in all directions while partitions move at random.

use partita_tests::random::Random;
use partita_tests::roaming::Roaming;
use partita_tests::{Bench, Result, amount};

/// With 10 of each application the whole suite makes more than 100 moves.
#[test]
fn messages_survive_random_moves() -> Result {
    storm(3, 56)
}

#[test]
#[ignore = "half a minute where KVM is, too long in the emulated machine: tests/system.sh storm:--ignored,eight"]
fn messages_of_eight_survive_two_hundred_moves() -> Result {
    storm(8, 200)
}

/// Makes so many moves of the ranks of a storm, chosen at random.
fn storm(ranks: u32, moves_wanted: u32) -> Result {
    let bench = Bench::new()?;
    let mut random = Random::from_environment("storm");
    let (mut moves, mut runs, mut longer) = (0, 0, 1);
    // Several runs, so that a program that ends early does not end the test.
    while moves < moves_wanted {
        runs += 1;
        assert!(runs <= 20, "only {moves} moves in {runs} runs: make them longer (PARTITA_TEST_SCALE)");
        // Every other run has messages of up to 4 MiB, and fewer of them.
        let (messages, bytes_max, memory) = match runs % 2 {
            1 => (amount(40_000, 2_000) * longer, 4 << 20, "160M"),
            _ => (amount(1_000_000, 60_000) * longer, 16 << 10, "64M"),
        };
        // As long as with three ranks, where all share two processors.
        let messages = messages * 9 / u64::from(ranks * ranks);
        let seed = random.below(1 << 30);
        let arguments = format!("--seed {seed} --messages {messages} --max-bytes {bytes_max}");
        println!("storm {arguments}");
        let arguments: Vec<_> = arguments.split(' ').map(str::to_owned).collect();
        let mut roaming = Roaming::start(&bench, ranks, memory, "storm", &arguments)?;
        while moves + roaming.moves < moves_wanted || !roaming.shares_rings() {
            let rank = random.below(u64::from(ranks)) as u32;
            // Every fourth time two of them switch over together.
            let two = [rank, (rank + 1) % ranks];
            if !roaming.step(&two[..if random.below(4) == 0 { 2 } else { 1 }])? {
                break;
            }
        }
        let output = roaming.finish(90)?;
        moves += roaming.moves;
        // A fast machine, or one that stood still.
        longer *= if roaming.moves < 4 { 2 } else { 1 };
        println!("storm: {} moves (of {moves}), blackouts {:?} ms", roaming.moves, roaming.blackouts_ms);
        let text = String::from_utf8_lossy(&output);
        let right =
            text.starts_with(&format!("storm: ok seed={seed} ranks={ranks} ")) && text.lines().count() == 1;
        if !right {
            return Err(format!("{text:?}\n{}", roaming.describe()).into());
        }
        drop(roaming);
        bench.assert_nothing_left()?;
    }
    Ok(())
}
