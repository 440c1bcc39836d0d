//! What a program has changed about the terminal that it is shown on: to undo it there when it is shown no longer, as it was left, or died
//! before it could; and to do it again where it is shown from now on. Called by `relay` for what a terminal shows.
//!
//! Knows one thing: DEC private modes (`CSI ? 1049 h`: the other screen, a hidden cursor, the mouse), each by its number; and the keypad's. All
//! else passes by unseen. man: console_codes(4); xterm: ctlseqs, DECSET

/// Modes that are on where nobody did anything: lines wrap, the cursor is seen.
const ON: [u16; 2] = [7, 25];
/// So many changed modes are remembered. Programs have less than ten.
const MOST: usize = 32;
/// The other screen: the first to come, and the last to go, since with it goes the place of the cursor.
const OTHER: [u16; 3] = [47, 1047, 1049];

#[derive(Debug, Default, Clone)]
pub(super) struct Screen {
    at: At,
    number: u16,
    numbers: Vec<u16>,
    /// Modes that are not as they were.
    changed: Vec<u16>,
    keypad: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum At {
    #[default]
    Text,
    Escape,
    Bracket,
    Numbers,
}

impl Screen {
    pub(super) fn sees(&mut self, bytes: &[u8]) {
        let first = if self.at == At::Text { bytes.iter().position(|b| *b == 0x1b).unwrap_or(bytes.len()) } else { 0 };
        for byte in bytes.iter().skip(first) {
            self.at = match (self.at, byte) {
                (_, 0x1b) => At::Escape,
                (At::Escape, b'[') => At::Bracket,
                (At::Escape, b'=' | b'>') => {
                    self.keypad = *byte == b'=';
                    At::Text
                }
                // RIS: as it was when it was switched on.
                (At::Escape, b'c') => {
                    *self = Screen::default();
                    At::Text
                }
                (At::Bracket, b'?') => {
                    (self.number, self.numbers) = (0, Vec::new());
                    At::Numbers
                }
                (At::Numbers, b'0'..=b'9') => {
                    self.number = self.number.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                    At::Numbers
                }
                (At::Numbers, b';') if self.numbers.len() < MOST => {
                    self.numbers.push(std::mem::take(&mut self.number));
                    At::Numbers
                }
                (At::Numbers, b'h' | b'l') => {
                    self.numbers.push(self.number);
                    for mode in std::mem::take(&mut self.numbers) {
                        self.set(mode, *byte == b'h');
                    }
                    At::Text
                }
                _ => At::Text,
            };
        }
    }

    fn set(&mut self, mode: u16, on: bool) {
        self.changed.retain(|m| *m != mode);
        if on != ON.contains(&mode) && self.changed.len() < MOST {
            self.changed.push(mode);
        }
    }

    /// What undoes it; empty: nothing is to be undone.
    pub(super) fn undo(&mut self) -> Vec<u8> {
        let Screen { mut changed, keypad, .. } = std::mem::take(self);
        changed.sort_by_key(|mode| OTHER.contains(mode));
        words(keypad.then_some("\x1b>"), &changed, |mode| ON.contains(&mode))
    }

    /// What does it on another terminal.
    pub(super) fn again(&self) -> Vec<u8> {
        let mut changed = self.changed.clone();
        changed.sort_by_key(|mode| !OTHER.contains(mode));
        words(self.keypad.then_some("\x1b="), &changed, |mode| !ON.contains(&mode))
    }
}

fn words(keypad: Option<&str>, modes: &[u16], on: impl Fn(u16) -> bool) -> Vec<u8> {
    let modes = modes.iter().map(|mode| format!("\x1b[?{mode}{}", if on(*mode) { 'h' } else { 'l' }));
    keypad.map(String::from).into_iter().chain(modes).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_undone() {
        for (shown, undone) in [
            ("text \x1b[1;31mred\x1b[m \x1b[2J\x1b]0;title\x07", ""),
            ("\x1b[?1049h\x1b[?25l\x1b[?1h\x1b=~", "\x1b>\x1b[?25h\x1b[?1l\x1b[?1049l"),
            // In one, done and undone again, cut short.
            ("\x1b[?1000;1006h\x1b[?1006l", "\x1b[?1000l"),
            ("\x1b[?1049h\x1b[?25l\x1b[?25h\x1b[?1049l", ""),
            ("\x1b[?10\x1b[?2004h\x1b[?999999999h\x1b[?7", "\x1b[?2004l\x1b[?65535l"),
            ("\x1b[?1049h\x1bc", ""),
        ] {
            // However it comes.
            for size in [1, 3, 100] {
                let mut screen = Screen::default();
                shown.as_bytes().chunks(size).for_each(|piece| screen.sees(piece));
                let mut other = Screen::default();
                other.sees(&screen.again());
                assert_eq!(other.undo(), screen.clone().undo(), "{shown:?}");
                assert_eq!(String::from_utf8(screen.undo()).unwrap(), undone, "{shown:?}");
                assert!(screen.undo().is_empty());
            }
        }
        // More than anybody has.
        let mut screen = Screen::default();
        (100..1000).for_each(|n| screen.sees(format!("\x1b[?{n};").as_bytes()));
        screen.sees((0..1000).map(|n| format!("\x1b[?{n}h")).collect::<String>().as_bytes());
        assert!(screen.undo().len() < 1000);
    }
}
