//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/berth-run/berth/internal/permissions"
)

// What every test here does, it does with a kubeconfig of create-kubeconfig
// that has the profiles it needs and no more. At the end the API server's audit
// log is read: nothing was refused, and of each profile nothing was granted
// that nothing uses.

// request is a line of the API server's audit log.
type request struct {
	Verb       string
	RequestURI string
	User       struct{ Username string }
	UserAgent  string
	ObjectRef  struct{ Resource, APIGroup, Subresource, Name string }

	ResponseStatus struct{ Code int }
	Annotations    map[string]string
}

// refused reports whether a request was not authorized. What a quota has no
// room for is a 403 as well, but of a request that was.
func (r request) refused() bool {
	return r.ResponseStatus.Code == 401 || r.ResponseStatus.Code == 403 && r.Annotations["authorization.k8s.io/decision"] != "allow"
}

// requests are all requests of the site's service account so far. Those of
// watches are told when they end.
func (s *site) requests() []request {
	s.t.Helper()
	file, err := os.Open(statePath(s.t, "audit.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	var requests []request
	if err := eachRequest(file, func(r request) {
		if r.namespace() == s.namespace {
			requests = append(requests, r)
		}
	}); err != nil {
		s.t.Fatal(err)
	}
	return requests
}

// eachRequest calls fn for each request that berth made with a kubeconfig of
// create-kubeconfig.
func eachRequest(log io.Reader, fn func(request)) error {
	for lines := bufio.NewReaderSize(log, 1<<20); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // a last line without an end is being written
		}
		if err != nil {
			return err
		}
		if !bytes.Contains(line, []byte(":berth\"")) {
			continue
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("%w: %s", err, line)
		}
		if r.namespace() != "" && strings.HasPrefix(r.UserAgent, "berth/") {
			fn(r)
		}
	}
}

// namespace is where the service account that asked is at home.
func (r request) namespace() string {
	namespace, account, _ := strings.Cut(strings.TrimPrefix(r.User.Username, "system:serviceaccount:"), ":")
	if account != permissions.Account {
		return ""
	}
	return namespace
}

// uses is the verb and the resource of a request; list and watch are one.
func uses(verb, resource string) string {
	if verb == "watch" {
		verb = "list"
	}
	return verb + " " + resource
}

func (r request) uses() string {
	object := r.ObjectRef.Resource
	if r.ObjectRef.APIGroup != "" {
		object += "." + r.ObjectRef.APIGroup
	}
	if r.ObjectRef.Subresource != "" {
		object += "/" + r.ObjectRef.Subresource
	}
	return uses(r.Verb, object)
}

// audited are the sites of this run, by their namespaces.
var audited struct {
	sync.Mutex
	sites map[string]*site
}

// untested are profiles whose rights are used by tests with others.
var untested = []permissions.Profile{permissions.Proxy}

// wholeRun reports whether all tests of the package are run.
func wholeRun() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if flag.Lookup(name).Value.String() != "" {
			return false
		}
	}
	return true
}

// audit writes what was done with each profile, and returns what is wrong.
func audit(w io.Writer) []string {
	path := filepath.Join(os.Getenv("BERTH_E2E_STATE"), "audit.log")
	if _, err := os.Stat(path); err != nil {
		return nil // somebody's own cluster, which keeps none
	}
	file, err := os.Open(path)
	if err != nil {
		return []string{err.Error()}
	}
	defer file.Close()
	audited.Lock()
	defer audited.Unlock()
	var problems []string
	requests := map[permissions.Profile]int{}
	used := map[permissions.Profile][]string{}
	err = eachRequest(file, func(r request) {
		s := audited.sites[r.namespace()]
		if s == nil {
			return
		}
		for _, profile := range s.profiles {
			requests[profile]++
			if what := r.uses(); !slices.Contains(used[profile], what) {
				used[profile] = append(used[profile], what)
			}
		}
		if r.refused() && !s.mayBeRefused {
			problems = append(problems, fmt.Sprintf("%s: refused: %s %s", s.t.Name(), r.Verb, r.RequestURI))
		}
	})
	if err != nil {
		problems = append(problems, err.Error())
	}
	if !wholeRun() {
		return problems
	}
	for _, profile := range append(slices.Clone(permissions.Profiles), permissions.Renewal) {
		if slices.Contains(untested, profile) {
			continue
		}
		var unused []string
		granted := permissions.Of(profile)
		for _, p := range granted {
			if !slices.Contains(used[profile], uses(p.Verb, p.Object())) {
				unused = append(unused, p.String())
			}
		}
		fmt.Fprintf(w, "profile %s: %d requests; %d of %d granted rights were used\n", profile, requests[profile], len(granted)-len(unused), len(granted))
		if len(unused) > 0 {
			problems = append(problems, fmt.Sprintf("profile %s grants what nothing uses: %s", profile, strings.Join(unused, ", ")))
		}
	}
	return problems
}
