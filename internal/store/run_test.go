package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

func newRecord(id, infrastructure, owner string) *berth.RunRecord {
	return &berth.RunRecord{
		Key:    owner + "/" + id,
		Caller: berth.Caller{Name: owner, Role: berth.RoleWrite},
		Run: berth.Run{
			ID: id, Workflow: "flow.star", State: berth.RunRunning, Infrastructure: infrastructure, Owner: owner, OnError: berth.OnErrorFinish,
			CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Packages: []berth.RunPackage{{Name: "text", Version: "1.0.0", Digest: "sha256:1"}},
		},
		Source:   berth.WorkflowSource{Main: "flow.star", Files: map[string][]byte{"flow.star": []byte("def main(): pass\n")}},
		Packages: []berth.Package{{Name: "text", Version: "1.0.0", Digest: "sha256:1"}},
	}
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func put(t *testing.T, s *Store, r *berth.RunRecord) {
	t.Helper()
	if err := s.PutRun(t.Context(), berth.Lease{}, r); err != nil {
		t.Fatal(err)
	}
}

func TestARunIsKeptWithItsProgramAndItsCalls(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		put(t, s, newRecord("r-1", "here", "ada"))
		var calls []berth.RunCall
		for i := range 1200 { // more than one statement has
			calls = append(calls, berth.RunCall{Seq: int64(i + 1), Key: fmt.Sprintf("main:run#%d", i+1), State: berth.CallRunning, Digest: "d"})
		}
		if err := s.CommitRun(t.Context(), berth.Lease{}, "r-1", nil, calls); err != nil {
			t.Fatal(err)
		}
		calls[0].State, calls[0].Result = berth.CallSucceeded, []byte(`{"a":1}`)
		if err := s.CommitRun(t.Context(), berth.Lease{}, "r-1", nil, calls[:1]); err != nil {
			t.Fatal(err)
		}
		s = open()
		record, err := s.RunRecord(t.Context(), "r-1")
		if err != nil {
			t.Fatal(err)
		}
		want := newRecord("r-1", "here", "ada")
		want.Run.Calls = map[berth.CallState]int{berth.CallRunning: 1199, berth.CallSucceeded: 1, berth.CallFailed: 0, berth.CallCancelled: 0}
		if got, want := asJSON(t, &record), asJSON(t, want); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		if same, err := s.RunByKey(t.Context(), "ada/r-1"); err != nil || same.ID != "r-1" {
			t.Errorf("by its key: %v, %v", same, err)
		}
		var kept []berth.RunCall
		for after := int64(0); ; after = kept[len(kept)-1].Seq {
			page, err := s.RunCalls(t.Context(), "r-1", after, 500)
			if err != nil {
				t.Fatal(err)
			}
			if kept = append(kept, page...); len(page) < 500 {
				break
			}
		}
		if asJSON(t, kept) != asJSON(t, calls) {
			t.Errorf("%d calls, and not as they were stored", len(kept))
		}
	})
}

func TestHowARunStandsChangesOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		record := newRecord("r-1", "here", "ada")
		put(t, s, record)
		put(t, s, newRecord("r-2", "there", "ada"))
		for infrastructure, want := range map[string][]string{"here": {"r-1"}, "there": {"r-2"}, "elsewhere": nil} {
			if ids, err := s.LiveRuns(t.Context(), infrastructure); err != nil || !reflect.DeepEqual(ids, want) {
				t.Errorf("runs of %s: %v, %v", infrastructure, ids, err)
			}
		}
		if live, err := s.LiveInfrastructures(t.Context()); err != nil || len(live) != 2 {
			t.Errorf("infrastructures that somebody has to go on with: %v, %v", live, err)
		}
		first := time.Unix(100, 5).UTC()
		for _, at := range []time.Time{first, time.Unix(200, 0)} {
			if err := s.CancelRun(t.Context(), "r-1", at); err != nil {
				t.Fatal(err)
			}
		}
		run, err := s.Run(t.Context(), "r-1")
		if err != nil || run.CancelledAt == nil || !run.CancelledAt.Equal(first) {
			t.Errorf("cancelled at %v, %v", run.CancelledAt, err)
		}
		run.State = berth.RunCancelled
		if err := s.CommitRun(t.Context(), berth.Lease{}, "r-1", &run, nil); err != nil {
			t.Fatal(err)
		}
		if ids, err := s.LiveRuns(t.Context(), "here"); err != nil || len(ids) != 0 {
			t.Errorf("after its end: %v, %v", ids, err)
		}
		record.Run.Resumed, record.Source.Files["flow.star"] = 1, []byte("def main(): return 1\n")
		put(t, s, record) // it goes on
		again, err := s.RunRecord(t.Context(), "r-1")
		if err != nil || again.Run.State != berth.RunRunning || again.Run.CancelledAt != nil || string(again.Source.Files["flow.star"]) != "def main(): return 1\n" {
			t.Errorf("resumed: %+v, %v", again, err)
		}
		if _, err := s.Run(t.Context(), "r-3"); berth.CodeOf(err) != berth.CodeNotFound {
			t.Errorf("one that there isn't: %v", err)
		}
	})
}

func TestRunsAreListedForWhoMaySeeThem(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		for i, owner := range []string{"ada", "bob", "ada", "ada"} {
			put(t, s, newRecord(fmt.Sprintf("r-%d", i+1), []string{"here", "there"}[i%2], owner))
		}
		ids := func(q berth.RunQuery, c berth.Caller) (ids []string) {
			for {
				page, err := s.Runs(t.Context(), q, c)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range page.Runs {
					ids = append(ids, r.ID)
				}
				if q.After = page.Next; page.Next == "" {
					return ids
				}
			}
		}
		admin, ada := berth.Caller{Name: "root", Role: berth.RoleAdmin}, berth.Caller{Name: "ada", Role: berth.RoleWrite}
		for _, tt := range []struct {
			query  berth.RunQuery
			caller berth.Caller
			want   []string
		}{
			{berth.RunQuery{}, admin, []string{"r-4", "r-3", "r-2", "r-1"}},
			{berth.RunQuery{Limit: 2}, admin, []string{"r-4", "r-3", "r-2", "r-1"}},
			{berth.RunQuery{}, ada, []string{"r-4", "r-3", "r-1"}},
			{berth.RunQuery{Owner: "bob"}, admin, []string{"r-2"}},
			{berth.RunQuery{Owner: "bob"}, ada, nil},
			{berth.RunQuery{State: berth.RunFailed}, admin, nil},
			{berth.RunQuery{}, berth.Caller{Name: "ada", Role: berth.RoleAdmin, Infrastructures: []string{"here"}}, []string{"r-3", "r-1"}},
		} {
			if got := ids(tt.query, tt.caller); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v for %+v: %v, want %v", tt.query, tt.caller, got, tt.want)
			}
		}
	})
}

func TestARunIsStoredUnderItsLeaseAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		if !s.Shared() {
			t.Skip("a file has one host")
		}
		old, ok, err := s.Acquire(t.Context(), "here", "a")
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if err := s.PutRun(t.Context(), old, newRecord("r-1", "here", "ada")); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := s.Acquire(t.Context(), "here", "a"); err != nil || !ok { // once more, with another fence
			t.Fatal(ok, err)
		}
		for what, err := range map[string]error{
			"a new run":      s.PutRun(t.Context(), old, newRecord("r-2", "here", "ada")),
			"how one stands": s.CommitRun(t.Context(), old, "r-1", &berth.Run{ID: "r-1", State: berth.RunFailed}, nil),
			"a call that is": s.CommitRun(t.Context(), old, "r-1", nil, []berth.RunCall{{Seq: 1, Key: "k", State: berth.CallFailed}}),
		} {
			if !errors.Is(err, berth.ErrFenced) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if run, err := s.Run(t.Context(), "r-1"); err != nil || run.State != berth.RunRunning || run.Calls[berth.CallFailed] != 0 {
			t.Errorf("%+v, %v", run, err)
		}
		if _, err := s.Run(t.Context(), "r-2"); berth.CodeOf(err) != berth.CodeNotFound {
			t.Errorf("stored nevertheless: %v", err)
		}
	})
}

func TestWhatCallsGaveIsFoundByOwnerAndDigest(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		for i, c := range []berth.CachedCall{
			{Owner: "ada", Digest: "d1", Package: "text", Result: []byte("1")},
			{Owner: "ada", Digest: "d2", Result: []byte("2")},
			{Owner: "bob", Digest: "d1", Package: "text", Result: []byte("3")},
			{Owner: "ada", Digest: "d1", Package: "text", Result: []byte("4")}, // known already
		} {
			c.ID, c.CreatedAt = fmt.Sprintf("c%d", i), time.Unix(int64(i), 0).UTC()
			if err := s.PutCachedCall(t.Context(), &c); err != nil {
				t.Fatal(err)
			}
		}
		for key, want := range map[[2]string]string{{"ada", "d1"}: "1", {"ada", "d2"}: "2", {"bob", "d1"}: "3"} {
			if c, err := s.CachedCall(t.Context(), key[0], key[1]); err != nil || string(c.Result) != want {
				t.Errorf("%v: %s, %v", key, c.Result, err)
			}
		}
		if _, err := s.CachedCall(t.Context(), "bob", "d2"); berth.CodeOf(err) != berth.CodeNotFound {
			t.Errorf("another's: %v", err)
		}
		ada, admin := berth.Caller{Name: "ada", Role: berth.RoleWrite}, berth.Caller{Name: "root", Role: berth.RoleAdmin}
		page, err := s.CachedCalls(t.Context(), berth.CacheQuery{Limit: 1}, ada)
		if err != nil || len(page.Calls) != 1 || page.Calls[0].ID != "c1" || page.Next != "c1" {
			t.Errorf("%+v, %v", page, err)
		}
		for _, tt := range []struct {
			query  berth.CacheQuery
			caller berth.Caller
			want   int
		}{
			{berth.CacheQuery{Owner: "bob"}, ada, 0},
			{berth.CacheQuery{Before: time.Unix(1, 0)}, ada, 1},
			{berth.CacheQuery{Package: "text"}, admin, 1},
			{berth.CacheQuery{}, admin, 1},
		} {
			if n, err := s.ClearCachedCalls(t.Context(), tt.query, tt.caller); err != nil || n != tt.want {
				t.Errorf("%+v of %s: %d, %v", tt.query, tt.caller.Name, n, err)
			}
		}
	})
}
