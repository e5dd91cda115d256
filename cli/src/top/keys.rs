//! What a key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{List, Model, Request, View};

impl Model {
    /// Does what a key asks for; what is returned somebody else has to do.
    pub fn key(&mut self, key: KeyEvent) -> Option<Request> {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            self.has_quit = true;
            return None;
        }
        if let View::Confirm(request) = self.view {
            self.view = View::Overview;
            if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                self.message = Some("asking for it".to_owned());
                return Some(request);
            }
            self.message = Some("not confirmed: nothing was changed".to_owned());
            return None;
        }
        self.message = None;
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc if self.view == View::Overview => {
                self.has_quit = true
            }
            KeyCode::Char('q') | KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.back(),
            KeyCode::Char('?' | 'h') => self.open(View::Help),
            KeyCode::Char('p') if self.is_paused() => {
                self.message = Some("paused already: r resumes".to_owned());
            }
            KeyCode::Char('p') => self.open(View::Confirm(Request::Pause)),
            KeyCode::Char('r') if !self.is_paused() => {
                self.message = Some("not paused".to_owned());
            }
            KeyCode::Char('r') => self.open(View::Confirm(Request::Resume)),
            KeyCode::Char('e') => {
                self.open(View::Pending);
                return Some(Request::Pending);
            }
            KeyCode::Char('d') => {
                self.open(View::Letters);
                return Some(Request::Letters);
            }
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.step(10),
            KeyCode::PageUp => self.step(-10),
            KeyCode::Enter | KeyCode::Right if self.n_listed() > 0 => {
                self.scrolled = 0;
                self.view = match self.view {
                    View::Pending => View::Details(List::Pending),
                    _ => View::Details(List::Letters),
                };
            }
            _ => {}
        }
        None
    }

    fn open(&mut self, view: View) {
        self.view = view;
        self.selected = 0;
        self.scrolled = 0;
    }

    fn back(&mut self) {
        self.view = match self.view {
            View::Details(List::Pending) => View::Pending,
            View::Details(List::Letters) => View::Letters,
            _ => View::Overview,
        };
    }

    fn step(&mut self, by: i16) {
        if matches!(self.view, View::Details(_)) {
            self.scrolled = self.scrolled.saturating_add_signed(by);
            return;
        }
        let last = self.n_listed().saturating_sub(1);
        self.selected = self
            .selected
            .saturating_add_signed(isize::from(by))
            .min(last);
    }
}
