# Behind an application load balancer that terminates TLS: clients use 443, NGINX listened on 5678 in the clear
external_url 'https://gitlab.example.com'
registry_external_url "https://registry-gitlab.example.com"
letsencrypt['enable'] = false

registry['nginx']['listen_port'] = 5678
registry['nginx']['listen_https'] = false
registry['nginx']['redirect_http_to_https'] = false
registry['nginx']['real_ip_header'] = 'X-Forwarded-For'
registry['nginx']['real_ip_recursive'] = 'on'
registry['nginx']['real_ip_trusted_addresses'] = ['10.1.0.0/16']
registry['nginx']['proxy_set_headers'] = {
  "X-Forwarded-Proto" => "https",
  "X-Forwarded-Ssl" => "on"
}
registry['env'] = { "REGISTRY_HTTP_RELATIVEURLS" => true }

nginx['listen_port'] = 80
nginx['listen_https'] = false
