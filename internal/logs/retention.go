package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// Ended says when a task ended, zero where nobody knows; not ok while it lives,
// or while what it printed isn't all here.
type Ended func(ctx context.Context, task string) (at time.Time, ok bool, err error)

// removedFile of a folder has a line "TASK.ATTEMPT TIME WHY" for each log that
// was removed from it, so that nobody takes it for empty.
const removedFile = "removed"

// sweptFile tells by its time when logs were last looked through.
const sweptFile = "swept"

// kept is a log on the disk.
type kept struct {
	task    string
	attempt int
	bytes   int64 // on the disk
	written time.Time
}

// Swept returns when logs were last looked through, zero for never.
func (s *Store) Swept() time.Time {
	if s.shared != nil {
		return s.sweptShared()
	}
	info, err := os.Stat(filepath.Join(s.dir, sweptFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Sweep removes logs of ended tasks that are older than the limits say, and the
// oldest while all take more than they allow. Of each it is kept that, when and
// why it was removed. It returns how many these were.
func (s *Store) Sweep(ctx context.Context, limits berth.LogLimits, ended Ended, now time.Time) (int, error) {
	all, err := s.list(ctx)
	if err == nil && s.shared != nil {
		if err := s.sealLeft(ctx, all, ended); err != nil {
			return 0, err
		}
		all, err = s.listShared(ctx)
	}
	if err != nil {
		return 0, berth.Errorf(berth.CodeInternal, "cannot look through the stored logs: %w", err)
	}
	var total int64
	for _, k := range all {
		total += k.bytes
	}
	slices.SortFunc(all, func(a, b kept) int { return a.written.Compare(b.written) })
	removed := 0
	for _, k := range all {
		old := limits.MaxAge > 0 && now.Sub(k.written) > limits.MaxAge
		large := limits.MaxSize > 0 && total > limits.MaxSize
		if !old && !large {
			break // what comes is newer
		}
		at, ok, err := ended(ctx, k.task)
		if err != nil {
			return removed, err
		}
		if at.IsZero() {
			at = k.written
		}
		old = old && now.Sub(at) > limits.MaxAge
		if !ok || !old && !large {
			continue
		}
		why := fmt.Sprintf("logs together took more than %d MiB, and it was the oldest (logs: max_size in infra.yml)", limits.MaxSize>>20)
		if old {
			why = fmt.Sprintf("its task ended more than %s before (logs: max_age in infra.yml)", limits.MaxAge)
		}
		remove := s.remove
		if s.shared != nil {
			remove = s.removeShared
		}
		if err := remove(ctx, k, now, why); err != nil {
			return removed, berth.Errorf(berth.CodeInternal, "cannot remove the log of task %s: %w", k.task, err)
		}
		removed++
		total -= k.bytes
	}
	if s.shared != nil {
		return removed, s.shared.Put(ctx, sweptFile, strings.NewReader(""))
	}
	return removed, os.WriteFile(filepath.Join(s.dir, sweptFile), nil, 0o600)
}

// list finds all logs.
func (s *Store) list(ctx context.Context) ([]kept, error) {
	folders, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var all []kept
	for _, folder := range folders {
		if !folder.IsDir() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		files, err := os.ReadDir(filepath.Join(s.dir, folder.Name()))
		if err != nil {
			return nil, err
		}
		at := map[string]int{} // both parts of a log are one
		for _, file := range files {
			name, ok := strings.CutSuffix(strings.TrimSuffix(file.Name(), ".zst"), ".log")
			task, number, found := strings.Cut(name, ".")
			attempt, err := strconv.Atoi(number)
			if !ok || !found || err != nil {
				continue
			}
			info, err := file.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			i, known := at[name]
			if !known {
				i = len(all)
				at[name] = i
				all = append(all, kept{task: task, attempt: attempt})
			}
			all[i].bytes += info.Size()
			if info.ModTime().After(all[i].written) {
				all[i].written = info.ModTime()
			}
		}
	}
	return all, nil
}

// remove notes that a log is removed, and removes it.
func (s *Store) remove(_ context.Context, k kept, now time.Time, why string) error {
	path := s.path(k.task, k.attempt)
	file, err := os.OpenFile(filepath.Join(filepath.Dir(path), removedFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s.%d %s %s\n", k.task, k.attempt, now.UTC().Format(time.RFC3339), why)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	for _, path := range []string{s.sealedPath(k.task, k.attempt), path} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removed says when and why a log was removed, if it was.
func (s *Store) removed(ctx context.Context, task string, attempt int) string {
	if s.shared != nil {
		return s.removedShared(ctx, task, attempt)
	}
	file, err := os.Open(filepath.Join(filepath.Dir(s.path(task, attempt)), removedFile))
	if err != nil {
		return ""
	}
	defer file.Close()
	prefix := fmt.Sprintf("%s.%d ", task, attempt)
	text := ""
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if rest, ok := strings.CutPrefix(scanner.Text(), prefix); ok {
			at, why, _ := strings.Cut(rest, " ")
			text = "the log was removed at " + at + ": " + why
		}
	}
	return text
}
