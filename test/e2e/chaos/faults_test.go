//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/pgtest"
)

// localkube runs a verb on the tests' cluster.
func localkube(args ...string) error {
	cmd := exec.Command(localkubeBinary, append(args, "--name", filepath.Base(stateDir))...)
	// localkube finds its clusters in the folder that it is started in.
	cmd.Dir = filepath.Dir(filepath.Dir(stateDir))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("localkube %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// stopFor stops a component for a while.
func stopFor(component string, kill bool, pause time.Duration) error {
	args := []string{"stop", component}
	if kill {
		args = append(args, "--kill")
	}
	if err := localkube(args...); err != nil {
		return err
	}
	<-time.After(pause)
	return localkube("start", component)
}

// fault is one thing that goes wrong, and is well again when it returns.
type fault struct {
	name string
	do   func(s *storm) error
}

// storm is the faults that hit control planes while tasks run.
type storm struct {
	*workload
	planes []*plane
	random *rand.Rand
	points []string
	full   string // the folder of a small disk; empty where there is none
	counts map[string]int

	database *pgtest.Server // of some of the planes
}

func (s *storm) pause(from, to time.Duration) time.Duration {
	return from + time.Duration(s.random.Int64N(int64(to-from)))
}

// hold lets a fault of the network last.
func (s *storm) hold(begin func(*proxy)) error {
	p := pick(s.random, s.planes)
	begin(p.network)
	<-time.After(s.pause(300*time.Millisecond, 4*time.Second))
	p.network.restore()
	return nil
}

// ofTheControlPlane are faults after which a server has to be started again.
var ofTheControlPlane = []fault{
	{"control plane killed", func(s *storm) error {
		pick(s.random, s.planes).kill()
		return nil
	}},
	{"control plane killed, the next one at a point", func(s *storm) error {
		pick(s.random, s.planes).kill(fmt.Sprintf("%s:%d", pick(s.random, s.points), 1+s.random.IntN(20)))
		return nil
	}},
}

// ofTheAPIServer are faults of the API server itself.
var ofTheAPIServer = []fault{
	{"API server restarted", func(*storm) error { return localkube("restart", "kube-apiserver") }},
	{"API server killed", func(*storm) error { return localkube("restart", "kube-apiserver", "--kill") }},
	{"API server away for a while", func(s *storm) error { return stopFor("kube-apiserver", true, s.pause(time.Second, 8*time.Second)) }},
}

// ofAllElse are faults of what is between and around them.
var ofAllElse = []fault{
	{"connections dropped", func(s *storm) error { pick(s.random, s.planes).network.drop(); return nil }},
	{"connections cut for a while", func(s *storm) error { return s.hold((*proxy).cut) }},
	{"connections slowed", func(s *storm) error { return s.hold(func(p *proxy) { p.slow(200 * time.Millisecond) }) }},
	{"connections half-closed", func(s *storm) error { return s.hold((*proxy).halfClose) }},
	{"what is sent swallowed", func(s *storm) error { return s.hold((*proxy).swallow) }},
	{"pod deleted by hand", func(s *storm) error { return s.deletePod(0) }},
	{"pod deleted by hand, with grace", func(s *storm) error { return s.deletePod(10) }},
	{"kubelet stopped", func(s *storm) error {
		return stopFor("kubelet", s.random.IntN(2) == 0, s.pause(time.Second, 6*time.Second))
	}},
	{"disk full", func(s *storm) error { return s.fillDisk() }},
	{"database restarted", func(s *storm) error { return s.restartDatabase(syscall.SIGINT, 0) }},
	{"database killed, and away for a while", func(s *storm) error {
		return s.restartDatabase(syscall.SIGQUIT, s.pause(time.Second, 8*time.Second))
	}},
}

// deletePod deletes any pod that runs, as somebody might who does not know
// whose it is. What becomes of its task is the suite's doing.
func (s *storm) deletePod(graceSeconds int64) error {
	n := s.planes[0].namespace
	for range 20 {
		pods, err := n.pods("")
		if err != nil {
			return err
		}
		pods = slices.DeleteFunc(pods, func(p corev1.Pod) bool { return p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil })
		if len(pods) == 0 {
			<-time.After(200 * time.Millisecond)
			continue
		}
		pod := pick(s.random, pods)
		s.mu.Lock()
		s.deleted[pod.Labels[berth.LabelTask]] = true
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = admin.CoreV1().Pods(n.name).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &graceSeconds, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
		return nil
	}
	return nil
}

// restartDatabase ends the database, which recovers when it is started.
func (s *storm) restartDatabase(signal syscall.Signal, pause time.Duration) error {
	s.database.Stop(signal)
	<-time.After(pause)
	return s.database.Start()
}

// fillDisk fills the disk of a data directory, and frees it.
func (s *storm) fillDisk() error {
	if s.full == "" {
		return nil
	}
	path := filepath.Join(s.full, "filler")
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer file.Close()
	piece := make([]byte, 64<<10)
	for until := time.Now().Add(s.pause(time.Second, 5*time.Second)); time.Now().Before(until); {
		if _, err := file.Write(piece); err != nil { // no room is left
			<-time.After(20 * time.Millisecond)
		}
	}
	return nil
}

// strike has a fault happen, and the API server answer the suite afterwards.
func (s *storm) strike(f fault) {
	began := time.Now()
	if err := f.do(s); err != nil {
		s.t.Errorf("%s: %v", f.name, err)
	}
	s.mu.Lock()
	s.counts[f.name]++
	s.mu.Unlock()
	s.t.Logf("%s %s (%.1fs), %d tasks have ended", began.Format("15:04:05"), f.name, time.Since(began).Seconds(), s.ended.Load())
}

// spread strikes with faults, one after the other, evenly over the progress of
// so many tasks.
func (s *storm) spread(ctx context.Context, tasks int, faults []fault) {
	for i, f := range faults {
		due := int64(tasks * (i + 1) / (len(faults) + 2))
		for s.ended.Load() < due {
			select {
			case <-ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
		s.strike(f)
	}
}

// times is so many faults, of each kind as often, in any order.
func times(r *rand.Rand, n int, of []fault) []fault {
	var all []fault
	for i := range n {
		all = append(all, of[i%len(of)])
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}
