package dashboard

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

var noon = time.Unix(1_800_000_000, 0)

func TestASessionIsForOneClusterAndATime(t *testing.T) {
	s := newSealer(bytes.Repeat([]byte{1}, minKey))
	of := session{cluster: mine, token: annsToken, expires: noon.Add(sessionTime)}
	sealed := s.seal(of)
	opened, ok := s.open(sealed, mine, noon)
	if !ok || opened.token != annsToken || opened.cluster != mine || !opened.expires.Equal(of.expires) {
		t.Fatalf("opened: %v %t", opened, ok)
	}
	if again := s.seal(of); again == sealed {
		t.Error("two sessions are alike")
	}
	plain, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || bytes.Contains(plain, []byte(annsToken)) || strings.Contains(sealed, annsToken) {
		t.Error("the token can be read")
	}
	flipped := []byte(sealed)
	flipped[20] ^= 1
	for name, open := range map[string]func() (session, bool){
		"another cluster's":     func() (session, bool) { return s.open(sealed, yours, noon) },
		"an expired one":        func() (session, bool) { return s.open(sealed, mine, of.expires) },
		"another server's":      func() (session, bool) { return newSealer(bytes.Repeat([]byte{2}, minKey)).open(sealed, mine, noon) },
		"a changed one":         func() (session, bool) { return s.open(string(flipped), mine, noon) },
		"a shortened one":       func() (session, bool) { return s.open(sealed[:len(sealed)-1], mine, noon) },
		"a lengthened one":      func() (session, bool) { return s.open(sealed+"A", mine, noon) },
		"one with padding":      func() (session, bool) { return s.open(sealed+"==", mine, noon) },
		"an empty one":          func() (session, bool) { return s.open("", mine, noon) },
		"one without a token":   func() (session, bool) { return s.open(s.seal(session{cluster: mine, expires: of.expires}), mine, noon) },
		"one of a megabyte":     func() (session, bool) { return s.open(strings.Repeat("A", 1<<20), mine, noon) },
		"one of a nonce's size": func() (session, bool) { return s.open(strings.Repeat("A", 16), mine, noon) },
	} {
		if _, ok := open(); ok {
			t.Errorf("%s opens", name)
		}
	}
}

func TestASessionIsNoGoodForAnotherCluster(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	session := c.loggedIn(t, mine, annsToken)
	if res := c.ask(http.MethodGet, "/"+yours+"/status", session); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("it was answered %s", res.Status)
	}
}

// A page of another cluster on the same origin can set cookies that are sent
// before ours.
func TestCookiesThatOthersLeaveBehindDoNotHideTheSession(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	foreign := c.loggedIn(t, yours, bobsToken)
	session := c.loggedIn(t, mine, annsToken)
	cookies := "berth-dashboard=junk; berth-dashboard=; " + foreign[1] + "; " + session[1]
	if res := c.ask(http.MethodGet, "/"+mine+"/status", headers{"Cookie", cookies}); res.StatusCode != http.StatusOK {
		t.Errorf("it was answered %s", res.Status)
	}
}

func TestNewNeedsWhatItCannotDoWithout(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	for name, change := range map[string]func(*Options){
		"a short key":     func(o *Options) { o.Key = o.Key[:minKey-1] },
		"no Authenticate": func(o *Options) { o.Authenticate = nil },
		"no Dial":         func(o *Options) { o.Dial = nil },
	} {
		o := c.handler.options
		change(&o)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s will do", name)
				}
			}()
			New(o)
		}()
	}
	o := c.handler.options
	o.Log = nil
	if New(o) == nil {
		t.Error("a log is needed")
	}
}

func FuzzSession(f *testing.F) {
	s := newSealer(bytes.Repeat([]byte{1}, minKey))
	good := s.seal(session{cluster: mine, token: annsToken, expires: noon.Add(time.Hour)})
	for _, seed := range []string{good, good[:len(good)-4], good + "AAAA", strings.ToUpper(good), "", "A", "=", "\x00", strings.Repeat("A", 38), strings.Repeat("_", maxSealed+1)} {
		f.Add(seed, mine)
		f.Add(seed, yours)
	}
	f.Fuzz(func(t *testing.T, sealed, cluster string) {
		got, ok := s.open(sealed, cluster, noon)
		if !ok {
			return
		}
		// Nobody but a sealer makes what opens. The seeds were sealed by another
		// process than this one, so that it is not their text that is compared.
		if cluster != mine || got.token != berth.Secret(annsToken) || !got.expires.Equal(noon.Add(time.Hour)) {
			t.Fatalf("%q opens for %q: %v", sealed, cluster, got)
		}
	})
}

// What is taken for a page is sent to a cluster as it is: it must not be another
// path for who reads it otherwise.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"/" + mine + "/status", "/" + mine + "/status/../api", "/" + mine + "/%2e%2e/x", "/" + mine, "/" + mine + "/info/a%2fb.html", "//" + mine, "/" + mine + "/status/..;/api", "/" + mine + "/%zz"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		u, err := parsePath(path)
		if err != nil {
			return
		}
		at, ok := addressOf(u)
		if !ok || !at.isPage() {
			return
		}
		sent := u.EscapedPath()
		first, _, _ := strings.Cut(at.rest, "/")
		if !strings.HasPrefix(sent, "/"+at.cluster+"/"+first) || strings.ContainsAny(sent, "\\\r\n ") {
			t.Fatalf("%q is sent as %q", path, sent)
		}
		if resolved := u.ResolveReference(u); resolved.EscapedPath() != sent {
			t.Fatalf("%q is %q for who resolves it", sent, resolved.EscapedPath())
		}
	})
}

func parsePath(path string) (*url.URL, error) {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		return nil, errors.New("no path")
	}
	return url.ParseRequestURI(path)
}
