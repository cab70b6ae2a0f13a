package bucket

import (
	"net/url"
	"strings"

	"github.com/berth-run/berth"
)

// Address says where a bucket is.
type Address struct {
	Name     string
	Prefix   string // of all keys: empty, or with "/" at its end
	Endpoint string // https://HOST:PORT of a server that isn't AWS's
	Region   string
	Profile  string // of the shared files of AWS
	CA       string // file with the authorities that the endpoint is verified by
}

// Scheme is what an address begins with.
const Scheme = "s3://"

// Parse reads s3://BUCKET?endpoint=URL&region=REGION&prefix=PREFIX&profile=NAME&ca=FILE.
// Its errors don't repeat the address: people put credentials into them.
func Parse(text string) (Address, error) {
	invalid := func(why string) (Address, error) {
		return Address{}, berth.Errorf(berth.CodeInvalid, "--storage: %s: it is a directory, or s3://BUCKET?endpoint=URL&region=REGION&prefix=PREFIX (&profile=NAME, &ca=FILE)", why)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return invalid("this is no address")
	case u.User != nil:
		return invalid("credentials have no place in the address; they are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, from ~/.aws/credentials, or from the machine's role")
	case u.Scheme != "s3":
		return invalid("only s3:// is known")
	case u.Host == "":
		return invalid("the bucket's name is missing")
	case u.Port() != "":
		return invalid("behind s3:// is the bucket's name; where its server is says endpoint=")
	case strings.Trim(u.Path, "/") != "":
		return invalid("keys below a folder are asked for with prefix=")
	}
	a := Address{Name: u.Host}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return invalid("what follows the ? can't be read")
	}
	for name, values := range query {
		value := values[len(values)-1]
		switch name {
		case "endpoint":
			a.Endpoint = strings.TrimSuffix(value, "/")
		case "region":
			a.Region = value
		case "prefix":
			a.Prefix = strings.Trim(value, "/")
		case "profile":
			a.Profile = value
		case "ca":
			a.CA = value
		default:
			return invalid("nothing is known as " + name + "=")
		}
	}
	if a.Prefix != "" {
		a.Prefix += "/"
	}
	if a.Endpoint != "" {
		if !strings.Contains(a.Endpoint, "://") {
			a.Endpoint = "https://" + a.Endpoint
		}
		e, err := url.Parse(a.Endpoint)
		if err != nil || e.Host == "" || e.User != nil || e.Path != "" || e.RawQuery != "" || e.Scheme != "https" && e.Scheme != "http" {
			return invalid("endpoint= is HOST:PORT or https://HOST:PORT")
		}
	}
	return a, nil
}

// Encrypted reports whether what is stored travels encrypted: unless somebody
// wrote http:// into the address.
func (a Address) Encrypted() bool { return !strings.HasPrefix(a.Endpoint, "http://") }

// String is the address as people know it.
func (a Address) String() string {
	text := "the bucket " + a.Name
	if a.Prefix != "" {
		text += " (below " + a.Prefix + ")"
	}
	if a.Endpoint != "" {
		text += " at " + a.Endpoint
	}
	return text
}
