package engine

import (
	"context"
	"slices"

	"github.com/berth-run/berth"
)

// queue says which task is let through next. Most of those that wait are in
// the store alone: of each share a page is here, and the next one is read when
// that is used up, so that a queue of a million costs what one of a thousand
// does.
//
// Between shares the one with the fewest tasks under way goes first; within
// one, higher priorities do, and then older tasks. Tasks that a quota refused
// are held aside by what they ask for, with all that ask for the same, so that
// smaller ones pass and only one of each kind tries again when the quota
// changes.
type queue struct {
	infrastructure string
	store          Store
	shares         map[string]*share
	in             map[string]*waiter // by task: those that are here
	held           map[request]*held
	turn           int // of the last that was let through
}

// share is what the tasks of one share wait in.
type share struct {
	name   string
	open   int         // its tasks under way
	turn   int         // when the last of it was let through
	page   []*waiter   // in order
	read   *berth.Life // the last one that was read from the store; nil: none was
	more   bool        // the store may have others behind it
	behind bool        // the store may have others before it: read from the beginning
}

// waiter is a task that waits.
type waiter struct {
	life  *berth.Life
	share *share
	free  bool // a quota changed: it may try though others that ask for the same are held
}

// held are the tasks that a quota refused, which ask for the same.
type held struct {
	lives     []*berth.Life
	diagnosis *berth.Diagnosis // of the first
}

// request is what a quota counts.
type request struct {
	cpu, memory, storage berth.Quantity
	gpu                  int
}

func requestOf(spec *berth.TaskSpec) request {
	return request{spec.CPU, spec.Memory, spec.EphemeralStorage, spec.GPU}
}

const (
	pageLimit = 256 // tasks of a share that are read at once
	keepLimit = 4 * pageLimit
)

func newQueue(infrastructure string, store Store) *queue {
	return &queue{infrastructure: infrastructure, store: store, shares: map[string]*share{}, in: map[string]*waiter{}, held: map[request]*held{}}
}

func (q *queue) share(name string) *share {
	s := q.shares[name]
	if s == nil {
		s = &share{name: name}
		q.shares[name] = s
	}
	return s
}

// before orders the tasks of one share.
func before(a, b *berth.Life) int {
	if d := b.Task.Spec.Priority - a.Task.Spec.Priority; d != 0 {
		return d
	}
	switch {
	case a.Task.ID < b.Task.ID:
		return -1
	case a.Task.ID > b.Task.ID:
		return 1
	}
	return 0
}

// add lets a task wait. One that merely waits, and comes behind what was read
// from the store, is left there.
func (q *queue) add(life *berth.Life) {
	if w := q.in[life.Task.ID]; w != nil {
		w.life = life
		return
	}
	s := q.share(life.Share)
	if life.Parked() && s.more && (s.read == nil || before(life, s.read) > 0) {
		return
	}
	q.insert(&waiter{life: life, share: s})
	if life.Parked() && (s.read == nil || before(life, s.read) > 0) {
		s.read = life
	}
	q.trim(s)
}

func (q *queue) insert(w *waiter) {
	at, _ := slices.BinarySearchFunc(w.share.page, w, func(a, b *waiter) int { return before(a.life, b.life) })
	w.share.page = slices.Insert(w.share.page, at, w)
	q.in[w.life.Task.ID] = w
}

// trim leaves to the store what is far behind.
func (q *queue) trim(s *share) {
	if len(s.page) <= keepLimit {
		return
	}
	var kept []*waiter
	for i, w := range s.page {
		if i < pageLimit || !w.life.Parked() {
			kept = append(kept, w)
			if w.life.Parked() {
				s.read = w.life
			}
			continue
		}
		delete(q.in, w.life.Task.ID)
		s.more = true
	}
	s.page = kept
}

// stored: tasks that merely wait were stored, the first of them being like this.
func (q *queue) stored(first *berth.Life) {
	s := q.share(first.Share)
	if s.read != nil && before(first, s.read) < 0 {
		s.behind = true
	}
	s.more = true
}

// remove forgets a task.
func (q *queue) remove(id string) {
	w := q.in[id]
	if w == nil {
		return
	}
	delete(q.in, id)
	if at, ok := slices.BinarySearchFunc(w.share.page, w, func(a, b *waiter) int { return before(a.life, b.life) }); ok {
		w.share.page = slices.Delete(w.share.page, at, at+1)
	}
}

// forget removes a task, whether it waits or is held.
func (q *queue) forget(id string) {
	q.remove(id)
	for r, h := range q.held {
		h.lives = slices.DeleteFunc(h.lives, func(l *berth.Life) bool { return l.Task.ID == id })
		if len(h.lives) == 0 {
			delete(q.held, r)
		}
	}
}

// hold keeps a task aside that a quota refused.
func (q *queue) hold(life *berth.Life) {
	q.remove(life.Task.ID)
	r := requestOf(&life.Task.Spec)
	h := q.held[r]
	if h == nil {
		h = &held{}
		q.held[r] = h
	}
	h.lives = append(h.lives, life)
	h.diagnosis = life.Task.Diagnosis
}

// release gives back one held task of a kind that is to try again; empty where
// none is held.
func (q *queue) release(r request) string {
	h := q.held[r]
	if h == nil {
		return ""
	}
	id := h.lives[0].Task.ID
	if h.lives = h.lives[1:]; len(h.lives) == 0 {
		delete(q.held, r)
	}
	return id
}

// requests are the kinds of which tasks are held.
func (q *queue) requests() []request {
	var all []request
	for r := range q.held {
		all = append(all, r)
	}
	return all
}

// next returns the task to be let through next, or nil; it is no longer in the
// queue then.
func (q *queue) next(ctx context.Context) (*berth.Life, error) {
	var best *waiter
	for _, s := range q.shares {
		if best != nil && (s.open > best.share.open || s.open == best.share.open && s.turn > best.share.turn) {
			continue
		}
		w, err := q.first(ctx, s)
		if err != nil {
			return nil, err
		}
		if w != nil {
			best = w
		}
	}
	if best == nil {
		return nil, nil
	}
	q.turn++
	best.share.turn = q.turn
	q.remove(best.life.Task.ID)
	return best.life, nil
}

// first returns the first task of a share that no held ones stand in the way of.
func (q *queue) first(ctx context.Context, s *share) (*waiter, error) {
	if len(s.page) == 0 || s.behind {
		if err := q.fill(ctx, s); err != nil {
			return nil, err
		}
	}
	if len(q.held) == 0 {
		if len(s.page) == 0 {
			return nil, nil
		}
		return s.page[0], nil
	}
	for _, w := range s.page {
		if w.free || q.held[requestOf(&w.life.Task.Spec)] == nil {
			return w, nil
		}
	}
	return nil, nil
}

// fill reads the next page of a share from the store.
func (q *queue) fill(ctx context.Context, s *share) error {
	if s.behind {
		s.behind, s.more, s.read = false, true, nil
	}
	if !s.more {
		return nil
	}
	lives, err := q.store.Queued(ctx, q.infrastructure, s.name, s.read, pageLimit)
	if err != nil {
		return err
	}
	s.more = len(lives) == pageLimit
	for _, life := range lives {
		s.read = life
		if q.in[life.Task.ID] == nil {
			q.insert(&waiter{life: life, share: s})
		}
	}
	q.trim(s)
	return nil
}
