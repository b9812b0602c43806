curl --fail-with-body --max-time 10 http://127.0.0.1:8080/v1/events -H 'Content-Type: application/json' \
  -d '{"iss": "https://id.example.com", "sub": "248289761001", "sid": "08a5019c", "clients": ["shop"]}'
