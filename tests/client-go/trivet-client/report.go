package main

import (
	"encoding/json"
	"io"
	"sync"
	"time"
)

// report counts what is written and seen, and prints it.
type report struct {
	mu        sync.Mutex
	out       *json.Encoder
	broken    error
	lastWrite time.Time
	writes    writes
	confirmed map[int]bool
	informers []informer
}

// writes is the writer's part of the summary.
type writes struct {
	// Sequence numbers that an apiserver confirmed.
	OK int `json:"ok"`
	// Requests that ended in an error.
	Failed int `json:"failed"`
	// Sequence numbers that took more than one request.
	Retried int `json:"retried"`
	// The longest time from one confirmation to the next.
	LongestWithout int64 `json:"longestWithoutMilliseconds"`
}

// informer is an informer's part of the summary.
type informer struct {
	// Sequence numbers that it saw.
	Events int `json:"events"`
	// Confirmed sequence numbers that it never saw.
	Missed int `json:"missed"`
	// Lists after its first one: each may hide events.
	Relists int `json:"relists"`
	// Watches that began.
	Watches int `json:"watches"`
	// The longest time from a write to its event.
	LongestDelay int64 `json:"longestDelayMilliseconds"`

	seen  map[int]bool
	lists int
}

type event struct {
	At       time.Time `json:"at"`
	Informer int       `json:"informer"`
	Sequence int       `json:"sequence"`
	Delay    int64     `json:"delayMilliseconds"`
}

type failure struct {
	At    time.Time `json:"at"`
	Who   string    `json:"who"`
	What  string    `json:"what"`
	Error string    `json:"error"`
}

type summary struct {
	Writes    writes     `json:"writes"`
	Informers []informer `json:"informers"`
}

func newReport(out io.Writer, informers int) *report {
	r := report{
		out:       json.NewEncoder(out),
		confirmed: make(map[int]bool),
		informers: make([]informer, informers),
	}
	for index := range r.informers {
		r.informers[index].seen = make(map[int]bool)
	}
	return &r
}

func (r *report) began(at time.Time) {
	r.locked(func() { r.lastWrite = at })
}

func (r *report) wrote(sequence int, at time.Time) {
	r.locked(func() {
		r.confirmed[sequence] = true
		r.writes.OK++
		r.writes.LongestWithout = max(r.writes.LongestWithout, at.Sub(r.lastWrite).Milliseconds())
		r.lastWrite = at
	})
}

func (r *report) retried() {
	r.locked(func() { r.writes.Retried++ })
}

// failed takes note of a request's outcome, if it is an error.
func (r *report) failed(who, what string, err error) {
	if err == nil {
		return
	}
	r.locked(func() {
		if what == "update" {
			r.writes.Failed++
		}
		r.print(map[string]any{"failure": failure{time.Now(), who, what, err.Error()}})
	})
}

func (r *report) listed(index int) {
	r.locked(func() {
		informer := &r.informers[index]
		informer.lists++
		informer.Relists = informer.lists - 1
	})
}

func (r *report) watched(index int, err error) {
	if err == nil {
		r.locked(func() { r.informers[index].Watches++ })
	}
}

func (r *report) seen(index, sequence int, written, at time.Time) {
	r.locked(func() {
		informer := &r.informers[index]
		// A list shows what is known already.
		if informer.seen[sequence] {
			return
		}
		informer.seen[sequence] = true
		informer.Events++
		delay := at.Sub(written).Milliseconds()
		informer.LongestDelay = max(informer.LongestDelay, delay)
		r.print(map[string]any{"event": event{at, index, sequence, delay}})
	})
}

// awaitLast waits until every informer has seen what was confirmed last, but no longer than limit.
func (r *report) awaitLast(limit time.Duration) {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		done := true
		r.locked(func() {
			for index := range r.informers {
				done = done && r.missed(index) == 0
			}
		})
		if done {
			return
		}
	}
}

// summarize prints the summary, and tells if anything could not be printed.
func (r *report) summarize() error {
	r.locked(func() {
		for index := range r.informers {
			r.informers[index].Missed = r.missed(index)
		}
		r.print(map[string]any{"summary": summary{r.writes, r.informers}})
	})
	return r.broken
}

func (r *report) missed(index int) int {
	missed := 0
	for sequence := range r.confirmed {
		if !r.informers[index].seen[sequence] {
			missed++
		}
	}
	return missed
}

func (r *report) print(line any) {
	if err := r.out.Encode(line); err != nil && r.broken == nil {
		r.broken = err
	}
}

func (r *report) locked(work func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	work()
}
