package logs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// removedFolder of an object store has, below the folder of each log that was
// removed, an object that says when and why.
const removedFolder = "removed/"

// sweptShared is Swept where all servers sweep the same logs, of which each
// time one does.
func (s *Store) sweptShared() time.Time {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	o, err := s.shared.Stat(ctx, sweptFile)
	switch {
	case notThere(err):
		return time.Time{}
	case err != nil:
		return time.Now() // it isn't for now
	}
	return o.Modified
}

// listShared finds all logs in the object store.
func (s *Store) listShared(ctx context.Context) ([]kept, error) {
	var all []kept
	for o, err := range s.shared.List(ctx, "", false) {
		if err != nil {
			return nil, err
		}
		fields := strings.Split(o.Key, "/")
		if len(fields) != 3 {
			continue
		}
		task, number, _ := strings.Cut(fields[1], ".")
		attempt, err := strconv.Atoi(number)
		if err != nil || folder(task, attempt) != fields[0]+"/"+fields[1]+"/" {
			continue
		}
		if n := len(all); n == 0 || all[n-1].task != task || all[n-1].attempt != attempt {
			all = append(all, kept{task: task, attempt: attempt})
		}
		k := &all[len(all)-1]
		k.bytes += o.Size
		if o.Modified.After(k.written) {
			k.written = o.Modified
		}
	}
	return all, nil
}

// removeShared notes that a log is removed, and removes it.
func (s *Store) removeShared(ctx context.Context, k kept, now time.Time, why string) error {
	prefix := folder(k.task, k.attempt)
	note := now.UTC().Format(time.RFC3339) + " " + why
	if err := s.shared.Put(ctx, removedFolder+prefix+"why", strings.NewReader(note)); err != nil {
		return err
	}
	var keys []string
	for o, err := range s.shared.List(ctx, prefix, false) {
		if err != nil {
			return err
		}
		keys = append(keys, o.Key)
	}
	for _, key := range slices.Backward(keys) {
		if err := s.shared.Delete(ctx, key); err != nil {
			return err
		}
	}
	return s.discard(k.task, k.attempt)
}

func (s *Store) removedShared(ctx context.Context, task string, attempt int) string {
	note, _, err := s.shared.Get(ctx, removedFolder+folder(task, attempt)+"why")
	if err != nil {
		return ""
	}
	at, why, _ := strings.Cut(string(note), " ")
	return fmt.Sprintf("the log was removed at %s: %s", at, why)
}

// sealLeft completes logs of ended tasks that this machine still has and nobody
// writes: of earlier versions, which left small ones as they were, or of before
// there was an object store. So they are sent.
func (s *Store) sealLeft(ctx context.Context, all []kept, ended Ended) error {
	for _, k := range all {
		if s.writes(k.task, k.attempt) {
			continue
		}
		if _, ok, err := ended(ctx, k.task); err != nil {
			return err
		} else if !ok {
			continue
		}
		parts, err := s.parts(ctx, k.task, k.attempt)
		if err != nil {
			return err
		}
		if count, _ := counting(parts); whole(count) {
			if err := s.discard(k.task, k.attempt); err != nil {
				return err
			}
			continue
		}
		w, err := s.Append(k.task, k.attempt, false)
		if err != nil {
			return err
		}
		err = w.Seal()
		_ = w.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
