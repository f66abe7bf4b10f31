package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func summaryOf(t *testing.T, play func(*report, time.Time)) summary {
	t.Helper()
	var out bytes.Buffer
	r := newReport(&out, 2)
	play(r, time.Unix(1000, 0))
	if err := r.summarize(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var last struct{ Summary summary }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	return last.Summary
}

func TestAConfirmedWriteThatAnInformerNeverSawIsMissed(t *testing.T) {
	got := summaryOf(t, func(r *report, start time.Time) {
		for sequence := 1; sequence <= 3; sequence++ {
			r.wrote(sequence, start)
			r.seen(0, sequence, start, start)
		}
		r.seen(1, 1, start, start)
		r.seen(1, 3, start, start)
	})
	if got.Informers[0].Missed != 0 || got.Informers[1].Missed != 1 {
		t.Errorf("missed %+v", got.Informers)
	}
}

func TestAWriteThatNobodyConfirmedIsNotMissed(t *testing.T) {
	got := summaryOf(t, func(r *report, start time.Time) {
		r.failed("writer", "update", errors.New("reset"))
		r.seen(0, 1, start, start)
	})
	if got.Informers[0].Missed+got.Informers[1].Missed != 0 || got.Writes.Failed != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestTheSameStateTwiceIsOneEvent(t *testing.T) {
	got := summaryOf(t, func(r *report, start time.Time) {
		r.seen(0, 7, start, start.Add(time.Second))
		r.seen(0, 7, start, start.Add(time.Minute))
	})
	if got.Informers[0].Events != 1 || got.Informers[0].LongestDelay != 1000 {
		t.Errorf("got %+v", got.Informers[0])
	}
}

func TestTheFirstListIsNoRelist(t *testing.T) {
	got := summaryOf(t, func(r *report, _ time.Time) {
		r.listed(0)
		r.listed(1)
		r.listed(1)
	})
	if got.Informers[0].Relists != 0 || got.Informers[1].Relists != 1 {
		t.Errorf("got %+v", got.Informers)
	}
}

func TestTheTimeWithoutAWriteLastsFromOneConfirmationToTheNext(t *testing.T) {
	got := summaryOf(t, func(r *report, start time.Time) {
		r.began(start)
		r.wrote(1, start.Add(time.Second))
		r.wrote(2, start.Add(4*time.Second))
		r.wrote(3, start.Add(5*time.Second))
	})
	if got.Writes.LongestWithout != 3000 {
		t.Errorf("got %d ms", got.Writes.LongestWithout)
	}
}
