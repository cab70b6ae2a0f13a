package bucket

import (
	"errors"
	"strings"
	"testing"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/objects/objecttest"
	"github.com/berth-run/berth/internal/s3test"
)

func environment(t *testing.T) {
	for name, value := range s3test.Environment() {
		t.Setenv(name, value)
	}
}

func TestABucketIsAnObjectStore(t *testing.T) {
	environment(t)
	server := s3test.New(t)
	for _, prefix := range []string{"", "some/where"} {
		b, err := Open(t.Context(), server.URL(prefix))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		objecttest.Suite(t, b)
	}
}

func TestWhatIsWrongWithABucketIsSaid(t *testing.T) {
	server := s3test.New(t)
	url := server.URL("")
	for name, c := range map[string]struct {
		url  string
		env  map[string]string
		want string
		code berth.ErrorCode
	}{
		"no such bucket": {strings.Replace(url, s3test.Bucket, "another", 1), nil, "does not exist: make it", berth.CodeInvalid},
		"wrong region":   {strings.Replace(url, s3test.Region, "eu-west-3", 1), nil, "is not in region eu-west-3: say where it is with region=", berth.CodeInvalid},
		"unreachable":    {"s3://bucket?endpoint=https://127.0.0.1:1", nil, "can't be reached: dial tcp 127.0.0.1:1: connect: connection refused", berth.CodeUnavailable},
		"unknown name":   {"s3://bucket?endpoint=https://no-such-host.invalid", nil, "the name no-such-host.invalid isn't known", berth.CodeUnavailable},
		"untrusted":      {"s3://bucket?endpoint=" + server.Endpoint(), nil, "of an authority that this machine doesn't trust: name that with ca=FILE or AWS_CA_BUNDLE", berth.CodeUnavailable},
		"unknown user":   {url, map[string]string{"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "doesn't know the access key", berth.CodeForbidden},
		"wrong secret":   {url, map[string]string{"AWS_SECRET_ACCESS_KEY": "hunter2-another"}, "the secret key is not the access key's", berth.CodeForbidden},
		"no credentials": {url, map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "there are no credentials: set AWS_ACCESS_KEY_ID", berth.CodeForbidden},
		"no CA file":     {"s3://bucket?endpoint=https://x&ca=/none", nil, "cannot read the file of ca=", berth.CodeInvalid},
		"no region":      {"s3://bucket", nil, "in which region is the bucket bucket?", berth.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t)
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			_, err := Open(t.Context(), c.url)
			if err == nil || !strings.Contains(err.Error(), c.want) || berth.CodeOf(err) != c.code {
				t.Errorf("%v (%s), want %q (%s)", err, berth.CodeOf(err), c.want, c.code)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("%q", err)
			}
		})
	}
}

func TestTheAuthorityMayBeOfTheEnvironment(t *testing.T) {
	environment(t)
	server := s3test.New(t)
	t.Setenv("AWS_CA_BUNDLE", server.CA)
	b, err := Open(t.Context(), "s3://"+s3test.Bucket+"?endpoint="+server.Endpoint()+"&region="+s3test.Region)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	server.Stop()
	if err := b.Put(t.Context(), "k", strings.NewReader("v")); berth.CodeOf(err) != berth.CodeUnavailable {
		t.Errorf("out of reach: %v", err)
	}
	server.Start(t)
	if err := b.Put(t.Context(), "k", strings.NewReader("v")); err != nil {
		t.Error(err)
	}
	broken := errors.New("the content broke")
	if err := b.Put(t.Context(), "half", breakingReader{broken}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if _, err := b.Stat(t.Context(), "half"); !isNotExist(err) {
		t.Errorf("half an object is there: %v", err)
	}
}

type breakingReader struct{ err error }

func (r breakingReader) Read([]byte) (int, error) { return 0, r.err }

func TestAddressesOfBuckets(t *testing.T) {
	a, err := Parse("s3://b?endpoint=minio.example.org:9000&region=r&prefix=/a/b/&profile=p&ca=/c.pem")
	if want := (Address{Name: "b", Prefix: "a/b/", Endpoint: "https://minio.example.org:9000", Region: "r", Profile: "p", CA: "/c.pem"}); err != nil || a != want {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := Parse("s3://b?endpoint=http://localhost:9000"); err != nil || a.Encrypted() {
		t.Errorf("%+v, %v", a, err)
	}
	for text, want := range map[string]string{
		"s3://":                         "the bucket's name is missing",
		"s3://b/folder":                 "prefix=",
		"s3://b:9000":                   "endpoint=",
		"s3://key:hunter2@b":            "credentials have no place",
		"s3://b?bucket=c":               "nothing is known as bucket=",
		"s3://b?endpoint=ftp://x":       "endpoint= is HOST:PORT",
		"s3://b?endpoint=https://x/y":   "endpoint= is HOST:PORT",
		"s3://b?endpoint=https://u:p@x": "endpoint= is HOST:PORT",
		"gs://b":                        "only s3:// is known",
		"s3://key:hunter2%zz@b":         "this is no address",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
