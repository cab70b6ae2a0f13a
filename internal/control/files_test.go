package control

import (
	"net/http/httptest"
	"testing"

	"github.com/berth-run/berth/internal/agent"
)

// The agent of a workflow's task may read and add files, with the token of its
// own attempt, and reaches nothing else of the registry.
func TestWhatTheAgentOfAWorkflowsTaskMay(t *testing.T) {
	a := &agents{keys: agent.Keys("key")}
	h := &Host{agents: a}
	token := a.keys.Token("t1", "pod-1")
	for _, is := range []struct {
		method, where, user, token string
		may                        bool
	}{
		{"GET", "/v2/berth/files/blobs/sha256:00", "task-t1/pod-1", token, true},
		{"HEAD", "/v2/berth/files/manifests/00", "task-t1/pod-1", token, true},
		{"POST", "/v2/berth/files/blobs/uploads/", "task-t1/pod-1", token, true},
		{"PATCH", "/v2/berth/files/blobs/uploads/x?_state=y", "task-t1/pod-1", token, true},
		{"PUT", "/v2/berth/files/manifests/00", "task-t1/pod-1", token, true},
		{"DELETE", "/v2/berth/files/manifests/00", "task-t1/pod-1", token, false},
		{"POST", "/v2/berth/files/blobs/uploads/?mount=sha256:00&from=lab/secret", "task-t1/pod-1", token, false},
		{"GET", "/v2/lab/secret/manifests/1.0.0", "task-t1/pod-1", token, false},
		{"PUT", "/v2/lab/secret/manifests/1.0.0", "task-t1/pod-1", token, false},
		{"GET", "/v2/berth/files/../../lab/secret/manifests/1.0.0", "task-t1/pod-1", token, false},
		{"GET", "/v2/berth/filesystem/manifests/1", "task-t1/pod-1", token, false},
		{"GET", "/v2/_catalog", "task-t1/pod-1", token, false},
		{"GET", "/v2/berth/files/blobs/sha256:00", "task-t2/pod-1", token, false},
		{"GET", "/v2/berth/files/blobs/sha256:00", "task-t1/pod-2", token, false},
		{"GET", "/v2/berth/files/blobs/sha256:00", "task-t1/pod-1", "", false},
		{"GET", "/v2/berth/files/blobs/sha256:00", "task-", token, false},
		{"GET", "/v2/berth/files/blobs/sha256:00", "t1/pod-1", token, false},
		{"PUT", "/v2/berth/files/manifests/00", "pull-site-a", a.keys.PullToken("site-a"), false},
		{"GET", "/v2/lab/secret/manifests/1.0.0", "pull-site-a", a.keys.PullToken("site-a"), true},
	} {
		r := httptest.NewRequest(is.method, is.where, nil)
		r.SetBasicAuth(is.user, is.token)
		if may := h.admits(r); may != is.may {
			t.Errorf("%s %s as %s: %v", is.method, is.where, is.user, may)
		}
	}
}
