//! Names for sandboxes that nobody named: two words, as people can say them. Called by `store`.
#![forbid(unsafe_code)]

use crate::error::{Error, Kind, Result};
use crate::ident::Name;

const HOW: [&str; 32] = [
    "able", "bold", "brave", "bright", "calm", "clear", "clever", "cosy", "deft", "eager", "fair", "fleet", "fresh", "gentle", "glad", "happy",
    "jolly", "keen", "kind", "lively", "lucky", "mellow", "merry", "neat", "nimble", "quick", "quiet", "ready", "spry", "steady", "sunny", "warm",
];
const WHO: [&str; 32] = [
    "badger", "beaver", "bison", "crane", "deer", "dove", "eagle", "falcon", "ferret", "finch", "fox", "gecko", "hare", "heron", "ibex", "jay",
    "koala", "lark", "lynx", "marten", "mole", "newt", "otter", "owl", "panda", "puffin", "raven", "robin", "seal", "stork", "swan", "wren",
];

/// One that is not taken; with a number where the words alone are.
pub fn made_up(chance: &[u8], taken: &dyn Fn(&Name) -> bool) -> Result<Name> {
    let word = |list: &'static [&'static str], n: usize| list.get(usize::from(chance.get(n).copied().unwrap_or_default()) % list.len()).copied();
    let (how, who) = (word(&HOW, 0).unwrap_or_default(), word(&WHO, 1).unwrap_or_default());
    for number in 0..100_000 {
        let name: Name = if number == 0 { format!("{how}-{who}") } else { format!("{how}-{who}-{number}") }.parse()?;
        if !taken(&name) {
            return Ok(name);
        }
    }
    Err(Error::new(Kind::Conflict, "cannot make up a name: they are all taken").hint("--name NAME"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_names_and_none_is_taken_twice() {
        let mut all = Vec::new();
        for n in (0..=255).chain(0..=3) {
            let name = made_up(&[n, n / 8], &|name| all.contains(name)).unwrap();
            assert!(!all.contains(&name));
            all.push(name);
        }
        assert!(all.iter().any(|name| name.as_str().ends_with("-1")), "the words alone do not suffice");
        assert!(HOW.iter().chain(&WHO).all(|word| word.bytes().all(|b| b.is_ascii_lowercase())));
    }
}
