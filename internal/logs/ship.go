package logs

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/berth-run/berth/internal/objects"
)

const (
	shipEvery = 10 * time.Second // how long a line may be on this machine alone
	shipAt    = 4 << 20          // bytes of a log, likewise
	shippers  = 8                // that send at a time

	flushes    = 32 // complete logs that are sent at a time
	flushLimit = 10 * time.Second

	callLimit = 15 * time.Second // for what somebody waits for
	sendLimit = 10 * time.Minute // for one part
	endLimit  = 5 * time.Second  // for what is left when the process ends

	inMemory = 8 << 20 // how large a part may be and be put together in memory
)

// Shared are the settings of a store whose logs all servers read.
type Shared struct {
	Objects objects.Store
	Log     *slog.Logger
}

// OpenShared returns a store that keeps logs in a directory until they are in an
// object store, from where other servers read them and go on with them. The
// directory is of this server alone. Close it.
func OpenShared(dir string, shared Shared) (*Store, error) {
	s, err := Open(dir)
	if err != nil {
		return nil, err
	}
	return s, s.share(dir, shared)
}

func (s *Store) share(dir string, shared Shared) (err error) {
	if s.server, err = serverName(dir); err != nil {
		return err
	}
	s.shared, s.log, s.shipments = shared.Objects, shared.Log, map[string]*shipment{}
	s.wake, s.flushes = make(chan struct{}, 1), make(chan struct{}, flushes)
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	all, err := s.list(ctx)
	if err != nil {
		return err
	}
	for _, k := range all {
		if found, err := openSealed(s.sealedPath(k.task, k.attempt), os.O_RDONLY); err == nil && found.complete() {
			s.note(k.task, k.attempt, true)
			found.close()
		} else if err == nil {
			found.close()
		}
	}
	s.shipping.Go(func() { s.keepShipping(ctx) })
	return nil
}

// Close sends what can be sent within a moment. The rest is sent by the next
// process that opens the directory.
func (s *Store) Close() error {
	if s.shared == nil {
		return nil
	}
	s.stop()
	s.shipping.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	_ = s.shipRound(ctx, false) // the next process does it
	return nil
}

// Unsent tells how many logs have lines that only this machine has, since when
// the oldest of these is there, and how often sending failed.
func (s *Store) Unsent() (logs int, since time.Time, failures int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sh := range s.shipments {
		if sh.dirty {
			logs++
			if since.IsZero() || sh.since.Before(since) {
				since = sh.since
			}
		}
	}
	return logs, since, s.failures
}

// shipment returns that of a log, which is made where there is none. The caller
// holds the store's mutex.
func (s *Store) shipmentOf(task string, attempt int) *shipment {
	key := s.path(task, attempt)
	sh := s.shipments[key]
	if sh == nil {
		sh = &shipment{task: task, attempt: attempt, epoch: 1}
		s.shipments[key] = sh
	}
	return sh
}

// note has a log sent, soon or at once.
func (s *Store) note(task string, attempt int, urgent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLocked(s.shipmentOf(task, attempt), 0, urgent)
}

func (s *Store) noteLocked(sh *shipment, grown int, urgent bool) {
	if !sh.dirty {
		sh.dirty, sh.since = true, time.Now()
	}
	if sh.grown += int64(grown); sh.grown >= shipAt {
		urgent = true
	}
	if urgent && !sh.urgent {
		sh.urgent = true
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (s *Store) keepShipping(ctx context.Context) {
	tick := time.NewTicker(s.shipEvery)
	defer tick.Stop()
	pause := time.Duration(0)
	for {
		urgent := false
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.wake:
			urgent = pause == 0
		}
		err := s.shipRound(ctx, urgent)
		if ctx.Err() != nil {
			return
		}
		s.failing.Store(err != nil)
		if err == nil {
			if pause > 0 {
				s.log.Info("logs are sent to shared storage again", "storage", s.shared.String())
			}
			pause = 0
			continue
		}
		if pause == 0 {
			s.log.Warn("logs can't be sent to shared storage: they stay on this machine, and it is tried again", "error", err)
		}
		pause = min(max(time.Second, 2*pause), 30*time.Second)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// flush sends a log now, while nothing is known to be wrong: once a log is said
// to be kept its pod goes, so it had better be where no machine can take it along.
func (s *Store) flush(sh *shipment) {
	if s.failing.Load() {
		return // keepShipping goes on trying
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	select {
	case s.flushes <- struct{}{}:
		defer func() { <-s.flushes }()
	case <-ctx.Done():
		return
	}
	if s.send(ctx, sh) != nil { // it stays noted
		s.failing.Store(true)
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// shipRound sends what there is to send, or what is to be sent at once. It
// returns the first error, after which it begins nothing more.
func (s *Store) shipRound(ctx context.Context, urgent bool) error {
	s.mu.Lock()
	var due []*shipment
	for _, sh := range s.shipments {
		if sh.dirty && (sh.urgent || !urgent) {
			due = append(due, sh)
		}
	}
	s.mu.Unlock()
	var mu sync.Mutex
	var failed error
	var sending sync.WaitGroup
	slots := make(chan struct{}, shippers)
	for _, sh := range due {
		slots <- struct{}{}
		mu.Lock()
		stop := failed != nil || ctx.Err() != nil
		mu.Unlock()
		if stop {
			break
		}
		sending.Go(func() {
			defer func() { <-slots }()
			if err := s.send(ctx, sh); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if failed == nil {
					failed = err
				}
			}
		})
	}
	sending.Wait()
	return failed
}

// send sends a log, and notes how that went.
func (s *Store) send(ctx context.Context, sh *shipment) error {
	ctx, cancel := context.WithTimeout(ctx, sendLimit)
	defer cancel()
	s.mu.Lock()
	since, urgent := sh.since, sh.urgent
	sh.dirty, sh.urgent, sh.grown = false, false, 0
	s.mu.Unlock()
	err := s.ship(ctx, sh)
	if notThere(err) { // another server has merged parts
		err = s.ship(ctx, sh)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		sh.dirty, sh.since, sh.urgent = true, since, sh.urgent || urgent
		if !errors.Is(err, context.Canceled) {
			s.failures++
		}
		return err
	}
	if !sh.dirty && sh.writers == 0 {
		delete(s.shipments, s.path(sh.task, sh.attempt))
	}
	return nil
}

// ship stores, as a part, what is here of a log and not in the object store.
func (s *Store) ship(ctx context.Context, sh *shipment) (err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	defer func() {
		if notThere(err) {
			if parts, listErr := s.parts(ctx, sh.task, sh.attempt); listErr == nil {
				sh.learn(parts, s.server)
			}
		}
	}()
	local := s.source(ctx, sh.task, sh.attempt)
	defer local.close()
	if err := local.refreshLocal(); err != nil {
		return err
	}
	begin, here := local.begin()
	if !here || sh.fenced {
		return nil
	}
	if !sh.known {
		parts, err := s.parts(ctx, sh.task, sh.attempt)
		if err != nil {
			return err
		}
		sh.learn(parts, s.server)
		// What is here went on without anybody's knowing what another server did.
		for i := range sh.parts {
			if p := sh.parts[i]; p.server != s.server && p.offset >= begin && !whole(sh.parts) {
				sh.trim(p.offset)
				break
			}
		}
	}
	complete := local.sealed.complete() && local.plain == nil
	if complete && whole(sh.parts) {
		return s.sent(ctx, sh)
	}
	end, err := local.endOfLines()
	if err != nil {
		return err
	}
	from := max(begin, endOf(sh.parts))
	switch {
	case complete:
		from = 0
	case from >= end:
		return nil
	default:
		// Parts of about the same size become one, so that there are few.
		for i := len(sh.parts) - 1; i >= 0; i-- {
			p := &sh.parts[i]
			if p.until != from || p.offset < begin || p.until-p.offset > end-from || end-p.offset > s.shipMerged {
				break
			}
			from = p.offset
		}
	}
	blocks, err := s.gather(ctx, sh, local, from, end, complete)
	if err != nil {
		return err
	}
	if len(blocks) == 0 {
		return nil
	}
	sh.sequence++
	p := part{epoch: sh.epoch, sequence: sh.sequence, offset: blocks[0].offset, end: end, until: end, blocks: len(blocks), server: s.server, complete: complete, after: blocks[len(blocks)-1].after}
	p.key = folder(sh.task, sh.attempt) + p.name()
	if err := s.put(ctx, p.key, blocks); err != nil {
		return err
	}
	var obsolete []part
	sh.parts, obsolete = counting(append(sh.parts, p))
	sh.obsolete = append(sh.obsolete, obsolete...)
	if complete && (sh.epoch > 1 || sh.sequence > 1) {
		parts, err := s.parts(ctx, sh.task, sh.attempt)
		if err != nil {
			return err
		}
		for _, old := range parts {
			if old.compare(&p) < 0 {
				sh.obsolete = append(sh.obsolete, old)
			}
		}
	}
	for len(sh.obsolete) > 0 {
		if err := s.shared.Delete(ctx, sh.obsolete[0].key); err != nil {
			return err
		}
		sh.obsolete = sh.obsolete[1:]
	}
	if complete {
		return s.sent(ctx, sh)
	}
	return nil
}

// sent removes what is here of a log that is complete in the object store.
func (s *Store) sent(_ context.Context, sh *shipment) error {
	s.mu.Lock()
	writers := sh.writers
	s.mu.Unlock()
	if writers > 0 {
		return nil // its end notes the log once more
	}
	if err := s.discard(sh.task, sh.attempt); err != nil {
		return err
	}
	s.Notify(sh.task, sh.attempt)
	return nil
}

// discard removes the files of a log.
func (s *Store) discard(task string, attempt int) error {
	for _, path := range []string{s.sealedPath(task, attempt), s.path(task, attempt)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
